"""The dual encoder behind CLIP and SigLIP: image tower, text tower and a joint space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError, UnknownName
from lavis_lite.losses.gradient_cache import CachedShared, check_cachable
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.models.base import LossSpecs, VisionLanguageModel, unit, width_of
from lavis_lite.modules import vision
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.output import ModelOutput, Samples
from lavis_lite.modules.text.load_tokenizer import tokenizer_for
from lavis_lite.modules.text.pooling import pool
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.projects.clip import config_check
from lavis_lite.projects.clip.convert import adapt
from lavis_lite.projects.clip.names import renamed

Spec = Mapping[str, Any]
Texts = list[str] | TextBatch
Projection = Literal["linear", "affine", "none"]


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


def dual_problems(spec: Spec, model: Spec) -> Iterator[str]:
    """Yield the problems of a dual encoder as a whole, as far as its config tells.

    Args:
        spec: the model as a component.
        model: its arguments, defaults included.
    """
    tower, chunk = model["vision"], model["gradient_cache"]
    if not chunk or not tower["name"].startswith("timm/"):  # others are checked when built
        return
    fresh = {key: value for key, value in tower.items() if key != "pretrained"}
    try:
        with torch.device("meta"):
            check_cachable(
                registry.build("vision_encoder", fresh, image_size=model["image_size"]), chunk
            )
    except (ConfigError, UnknownName) as error:
        yield str(error)


class DualEncoder(VisionLanguageModel):
    """Images and texts as unit vectors of one space; no layer sees both.

    Args:
        vision: the vision encoder's component.
        text: the text backbone's component: any that needs no image.
        image_size: side of the square input, or its (height, width).
        tokenizer: a WordPiece vocabulary's folder, file or hub id, or ``hf/`` and the folder or hub
            id of any tokenizer; None is an ``hf/*`` tower's own, or the small one of the package.
        embed_width: width E of the joint space; None is that of the image tower.
        max_length: tokens that a text is cut to; None is all that the text tower holds.
        vision_projection: from the pooled image to the joint space: ``linear``, ``affine`` (with a
            bias), or ``none`` where the tower ends there.
        text_projection: likewise of the text.
        temperature: what similarities are divided by at first; it is learnt.
        min_temperature: it is kept from falling below; 0 is no bound.
        gradient_cache: rows of a batch that are encoded at a time in training, for batches whose
            activations don't fit into memory: the same numbers for one more forward pass. 0: all.
        losses: name -> component.
    """

    def __init__(
        self,
        vision: Spec,
        text: Spec,
        image_size: ImageSize = 224,
        tokenizer: str | None = None,
        embed_width: int | None = 512,
        max_length: int | None = None,
        vision_projection: Projection = "linear",
        text_projection: Projection = "linear",
        temperature: float = 0.07,
        min_temperature: float = 0.01,
        gradient_cache: int = 0,
        losses: LossSpecs | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.tokenizer = tokenizer_for(text, tokenizer)
        self.visual_encoder = registry.build("vision_encoder", vision, image_size=image_size)
        image_width = width_of(self.visual_encoder, "vision", vision)
        self.embed_width = image_width if embed_width is None else embed_width
        self.text_encoder = registry.build(
            "text_backbone", text, vocab_size=len(self.tokenizer), encoder_width=image_width
        )
        text_width = width_of(self.text_encoder, "text", text)
        self.max_length = text_length(self.text_encoder, max_length, text)
        self.vision_proj = projection("vision", vision_projection, image_width, self.embed_width)
        self.text_proj = projection("text", text_projection, text_width, self.embed_width)
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.min_temperature = min_temperature
        self.gradient_cache = gradient_cache
        check_cachable(self, gradient_cache)
        self.add_losses(losses)

    def forward(self, samples: Samples, step_info: StepInfo | None = None) -> ModelOutput:
        """Compute the losses of a batch; the temperature is held above its bound first."""
        if self.min_temperature:
            with torch.no_grad():
                self.logit_scale.clamp_(max=-math.log(self.min_temperature))
        if not self.gradient_cache:
            return super().forward(samples, step_info)
        shared = CachedShared(self, samples, self.gradient_cache, step_info)
        return ModelOutput({name: loss(shared) for name, loss in self.losses.items()})

    @property
    def temperature(self) -> Tensor:
        """() what cosine similarities are divided by, fp32."""
        return torch.exp(-self.logit_scale.float())

    def tokenize(self, texts: list[str]) -> TextBatch:
        """B texts to ids and mask (B, T)."""
        whole = getattr(self.text_encoder, "reads_padding", False)
        batch = self.tokenizer.encode(texts, self.max_length, device=self.device, pad_to_max=whole)
        return TextBatch(batch.ids, torch.ones_like(batch.mask)) if whole else batch

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) tokens."""
        return vision.encode(self.visual_encoder, image)

    def encode_text(self, text: Texts) -> Tensor:
        """B texts -> (B, 1 + T, D): the vector that speaks for each text, then its tokens' states.

        Which token speaks for a text depends on its length, so that vector goes first, where images
        have their class token.
        """
        batch = text if isinstance(text, TextBatch) else self.tokenize(text)
        states = self.text_encoder(batch.ids, batch.mask)
        return torch.cat([pool(self.text_encoder, states, batch.mask)[:, None], states], dim=1)

    def image_embeds(self, image_tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, E) unit length, fp32."""
        return unit(self.image_features(image_tokens))

    def text_embeds(self, text_tokens: Tensor) -> Tensor:
        """(B, 1 + T, D) -> (B, E) unit length, fp32."""
        return unit(self.text_features(text_tokens))

    def image_features(self, image_tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, E) in the joint space, of any length."""
        return self.vision_proj(vision.pool(self.visual_encoder, image_tokens))

    def text_features(self, text_tokens: Tensor) -> Tensor:
        """(B, 1 + T, D) -> (B, E) in the joint space, of any length."""
        return self.text_proj(text_tokens[:, 0])

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

    def rename_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of OpenAI, open_clip or transformers under our keys; others as they are."""
        return renamed(weights)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights without what training leaves in a file, resampled to this image size."""
        return adapt(self, weights)

    def check_config(self, config: Mapping[str, Any], source: str) -> None:
        """Refuse weights that a ``config.json`` beside them says are of another model."""
        config_check.check(self, config, source)


def text_length(tower: nn.Module, max_length: int | None, spec: Spec) -> int:
    """Return the most tokens of a text: ``max_length``, or all that the tower holds.

    Raises:
        ConfigError: more than the tower holds; or None, and the tower has no limit.
    """
    holds: int | None = getattr(tower, "max_length", None)
    length = holds if max_length is None else max_length
    if length is None:
        raise ConfigError(
            f"model.max_length: text backbone {spec['name']!r} takes texts of any length; "
            "say how many tokens to read, such as 64"
        )
    if holds is not None and length > holds:
        raise ConfigError(
            f"model.max_length: {length}; text backbone {spec['name']!r} holds {holds} tokens"
        )
    return length


def projection(key: str, kind: Projection, width: int, embed_width: int) -> nn.Module:
    """Return a projection of (B, D) to (B, E), drawn with standard deviation ``D ** -0.5``.

    Raises:
        ConfigError: ``none``, and the widths differ.
    """
    if kind == "none":
        if width != embed_width:
            raise ConfigError(
                f"model.{key}_projection: none, but the tower is {width} wide and the joint space "
                f"{embed_width} (model.embed_width); use linear, or equal widths"
            )
        return nn.Identity()
    linear = nn.Linear(width, embed_width, bias=kind == "affine")
    nn.init.normal_(linear.weight, std=width**-0.5)
    if kind == "affine":
        nn.init.zeros_(linear.bias)
    return linear
