"""clip_feature_extractor: an image and a text as features of one space."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lavis_lite import registry
from lavis_lite.errors import ConfigError
from lavis_lite.interfaces import Samples
from lavis_lite.modes import eval_mode
from lavis_lite.projects.clip.dual import DualEncoder


class Features(NamedTuple):
    """Features of what was given; the fields of what was not are None.

    Attributes:
        image_embeds: (B, E) in the joint space, of any length.
        image_embeds_proj: (B, E) of unit length.
        text_embeds: (B, E) in the joint space, of any length.
        text_embeds_proj: (B, E) of unit length.
    """

    image_embeds: Tensor | None = None
    image_embeds_proj: Tensor | None = None
    text_embeds: Tensor | None = None
    text_embeds_proj: Tensor | None = None


@registry.register("model", "clip_feature_extractor")
class ClipFeatureExtractor(DualEncoder):
    """The towers and projections of ``clip``, under the calls of LAVIS.

    Args:
        vision: the vision encoder's component.
        text: the text backbone's component: any that needs no image.
        image_size: side of the square input, or its (height, width).
        tokenizer: as of ``clip``.
        embed_width: width E of the joint space; None is that of the image tower.
        max_length: tokens that a text is cut to; None is all that the text tower holds.
        vision_projection: from the pooled image to the joint space: ``linear``, ``affine`` or
            ``none``.
        text_projection: likewise of the text.
        temperature: what similarities are divided by.
        min_temperature: as of ``clip``.
        gradient_cache: as of ``clip``.
        losses: name -> component; none are needed to extract.
    """

    @torch.no_grad()
    def extract_features(self, samples: Samples) -> Features:
        """Features of a batch, without gradients and dropout.

        Args:
            samples: ``image`` (B, 3, H, W), ``text_input`` (a text or a list of texts), or both.

        Raises:
            ConfigError: neither.
        """
        image, texts = samples.get("image"), samples.get("text_input")
        if image is None and texts is None:
            raise ConfigError(
                "extract_features: samples have neither `image` nor `text_input`; give one or both"
            )
        found: dict[str, Tensor] = {}
        with eval_mode(self):
            if image is not None:
                tokens = self.encode_image(image.to(self.device))
                found["image_embeds"] = self.image_features(tokens)
                found["image_embeds_proj"] = self.image_embeds(tokens)
            if texts is not None:
                states = self.encode_text([texts] if isinstance(texts, str) else list(texts))
                found["text_embeds"] = self.text_features(states)
                found["text_embeds_proj"] = self.text_embeds(states)
        return Features(**found)
