"""An image and a text as features, apart and together."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lavis_lite.config.calls import checked_options
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.models import joint_space
from lavis_lite.models.base import unit
from lavis_lite.models.images import images_of
from lavis_lite.models.multimodal import GroundedModel
from lavis_lite.models.texts import as_texts, texts_of
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.med.model import Med
from lavis_lite.modules.output import Samples
from lavis_lite.modules.samples import as_samples, misspelt
from lavis_lite.modules.text.wordpiece import WordPiece


class Features(NamedTuple):
    """The features that were asked for; the other fields are None.

    Attributes:
        image_embeds: (B, N, D) image tokens, the class token first.
        image_embeds_proj: (B, N, E) in the joint space, each token of unit length.
        text_embeds: (B, T, D) states of the text alone, ``[CLS]`` first.
        text_embeds_proj: (B, T, E) in the joint space, each token of unit length.
        multimodal_embeds: (B, T, D) states of the text that has looked at the image, ``[ENC]``
            first.
    """

    image_embeds: Tensor | None = None
    image_embeds_proj: Tensor | None = None
    text_embeds: Tensor | None = None
    text_embeds_proj: Tensor | None = None
    multimodal_embeds: Tensor | None = None


class FeatureExtraction(GroundedModel):
    """A pre-trained model's towers and projections, without its heads.

    Args:
        visual_encoder, text_encoder, tokenizer, image_size, max_length: as of ``GroundedModel``.
        vision_proj: from image tokens to the joint space, (..., D) -> (..., E).
        text_proj: from the states of a text to the joint space, (..., D) -> (..., E).
    """

    encode_text = joint_space.encode_text
    image_features = joint_space.image_features
    text_features = joint_space.text_features

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_encoder: Med,
        tokenizer: WordPiece,
        *,
        vision_proj: nn.Linear,
        text_proj: nn.Linear,
        image_size: ImageSize,
        max_length: int,
    ) -> None:
        super().__init__(
            visual_encoder, text_encoder, tokenizer, image_size=image_size, max_length=max_length
        )
        self.vision_proj, self.text_proj = vision_proj, text_proj
        self.embed_width = vision_proj.out_features
        self.temp = nn.Parameter(torch.tensor(0.07))

    @property
    def temperature(self) -> Tensor:
        """() what cosine similarities are divided by, fp32."""
        return self.temp.float()

    @checked_options
    @torch.no_grad()
    def extract_features(
        self, samples: Samples, mode: Literal["multimodal", "text", "image"] = "multimodal"
    ) -> Features:
        """Features of a batch, without gradients and dropout.

        The texts of a batch are padded to its longest one; features at padding mean nothing, and
        those of the other tokens do not depend on it.

        Args:
            samples: ``image`` (B, 3, H, W) and ``text_input``, B texts; one of them is enough
                for its own mode.
            mode: ``image``, ``text``, or ``multimodal`` for the text that looks at the image.

        Raises:
            ConfigError: another mode, or samples without what the mode reads.
        """
        check_mode(samples, mode)
        with eval_mode(self):
            if mode == "text":
                states = self.encode_text(as_texts(samples["text_input"], "text_input"))
                return Features(text_embeds=states, text_embeds_proj=unit(self.text_proj(states)))
            tokens = self.encode_image(images_of(samples, self))
            if mode == "image":
                projected = unit(self.vision_proj(tokens))
                return Features(image_embeds=tokens, image_embeds_proj=projected)
            text = self.tokenize(texts_of(samples, len(tokens)))
            states = self.read(self.text_tower.image_context(tokens, text.ids.shape[1]), text)
            return Features(image_embeds=tokens, multimodal_embeds=states)


def check_mode(samples: Samples, mode: str) -> None:
    """Refuse samples without the image or the texts that a mode of ``extract_features`` reads.

    Raises:
        ConfigError: no samples, or some that lack one; the message has the nearest key.
    """
    reads = {"image": ["image"], "text": ["text_input"]}.get(mode, ["image", "text_input"])
    as_samples(samples)
    if missing := [name for name in reads if samples.get(name) is None]:
        near = misspelt(samples, missing[0])
        raise ConfigError(f"mode {mode!r} reads {', '.join(missing)}, which samples lack.{near}")
