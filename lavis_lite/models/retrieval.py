"""The joint space and matching trained together, with a momentum copy where a loss asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.models import joint_space
from lavis_lite.models.base import Losses, Texts
from lavis_lite.models.gradcam import compute_gradcam
from lavis_lite.models.momentum import MomentumCopy
from lavis_lite.models.multimodal import FirstToken, GroundedModel
from lavis_lite.modules.layers.modes import full_precision
from lavis_lite.modules.med.attention import Source
from lavis_lite.modules.med.model import Med, MedDecoder
from lavis_lite.modules.output import ModelOutput, Samples
from lavis_lite.modules.text.packing import pack_texts
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.modules.text.wordpiece import WordPiece

TOKENS_AT_ONCE = 1024  # of the texts that `rank` reads at a time

RankTexts = Sequence[str] | Sequence[Sequence[str]] | TextBatch


class Retrieval(GroundedModel):
    """Image-text contrast and matching, with a momentum copy where a loss asks for one.

    Args:
        visual_encoder, text_encoder, tokenizer, image_size, max_length: as of ``GroundedModel``.
        vision_proj: from the pooled image to the joint space, (B, D) -> (B, E).
        text_proj: from a text's first state to the joint space, (B, D) -> (B, E).
        itm_head: from a text's first state, read with an image, to the logits (B, 2).
        temperature: what similarities are divided by at first; it is learnt. None: there is none,
            as nothing is trained.
        first_token: what a text starts with where it is read with an image.
        losses: name -> loss.
    """

    momentum_pairs = ("visual_encoder", "vision_proj", "text_encoder", "text_proj")
    momentum: MomentumCopy
    embed_width: int

    encode_text = joint_space.encode_text
    image_features = joint_space.image_features
    text_features = joint_space.text_features

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_encoder: Med | MedDecoder,
        tokenizer: WordPiece,
        *,
        vision_proj: nn.Linear,
        text_proj: nn.Linear,
        itm_head: nn.Linear,
        image_size: ImageSize,
        max_length: int,
        temperature: float | None = 0.07,
        first_token: FirstToken = "enc",
        losses: Losses | None = None,
    ) -> None:
        super().__init__(
            visual_encoder, text_encoder, tokenizer, image_size=image_size, max_length=max_length
        )
        self.vision_proj, self.text_proj = vision_proj, text_proj
        self.embed_width = vision_proj.out_features
        self.itm_head = itm_head
        self.first_token = first_token
        self.temp = None if temperature is None else nn.Parameter(torch.tensor(temperature))
        self.add_losses(losses)

    def forward(self, samples: Samples, step_info: StepInfo | None = None) -> ModelOutput:
        """Compute the losses of a batch; the temperature is held in [0.001, 0.5], as published."""
        if self.temp is not None:
            with torch.no_grad():
                self.temp.clamp_(0.001, 0.5)
        return super().forward(samples, step_info)

    @property
    def temperature(self) -> Tensor:
        """() what cosine similarities are divided by, fp32."""
        assert self.temp is not None, "made without a temperature"
        return self.temp.float()

    @property
    def match_tower(self) -> Med:
        """The tower whose cross-attention reads the image."""
        return self.text_tower

    def match_pairs(
        self, image_context: Sequence[Source], text: TextBatch, states: Tensor | None = None
    ) -> Tensor:
        """Projected images of B rows and K * B texts, image-major -> (K * B, 2) logits, fp32.

        Under autocast too: half precision would give many texts the same score. ``states`` is as
        of ``read``.
        """
        first = text.ids.new_zeros(len(text.ids), 1)
        return self.judge(self.read(image_context, text, states, first)[:, 0])

    def judge(self, states: Tensor) -> Tensor:
        """(..., D) states of texts' first tokens -> (..., 2) logits, fp32."""
        head = self.itm_head
        with full_precision(states.device):
            return linear(states.float(), head.weight.float(), head.bias.float())

    def match(self, image_tokens: Tensor, text: Texts) -> Tensor:
        """(B, N, D) and B texts -> (B, 2) logits: does not match, matches.

        Raises:
            ConfigError: more or fewer texts than images.
        """
        batch = one_each(text, len(image_tokens), self.tokenize)
        return self.match_pairs(
            self.text_tower.image_context(image_tokens, batch.ids.shape[1]), batch
        )

    def rank(self, image_tokens: Tensor, texts: RankTexts) -> Tensor:
        """(B, N, D) and K texts per image -> (B, K) logits of "matches".

        The image is projected once; its texts are folded onto it, short ones side by side in rows
        without padding, so many at a time that memory does not grow with K.

        Args:
            image_tokens: from ``encode_image``.
            texts: K texts for each image; K texts for all of them; or rows that are tokenised
                already, image-major.

        Raises:
            ConfigError: not the same number of texts for every image.
        """
        num_images = len(image_tokens)
        batch = image_major(texts, num_images, self.tokenize)
        if not len(batch.ids):
            return image_tokens.new_zeros(num_images, 0, dtype=torch.float32)
        rows = pack_texts(self._started(batch), num_images)
        kv = self.text_tower.image_context(image_tokens, rows.ids[0].numel())
        logits = []
        for part in rows.split(TOKENS_AT_ONCE):
            states = self.text_tower(
                part.ids.flatten(0, 1),
                part.visible.flatten(0, 1),
                mode="multimodal",
                image_kv=kv,
                positions=part.positions.flatten(0, 1),
                query_positions=part.starts.flatten(0, 1),
            )  # (B * G, S, D)
            logits.append(self.judge(states)[..., 1].view(num_images, -1))
        return torch.cat(logits, dim=1).gather(1, rows.order)

    def localize(self, image: Tensor, texts: list[str], block_num: int | None = None) -> Tensor:
        """(B, 3, H, W) and B texts -> (B, rows, columns) relevance of each patch, at least 0.

        Args:
            image: the images.
            texts: one for each.
            block_num: the layer whose cross-attention is looked at; by default the one after the
                middle.
        """
        maps, _ = compute_gradcam(self, image, texts, block_num=block_num)
        return torch.stack([rows[1] for rows in maps])


def one_each(text: Texts, num_images: int, tokenize: Callable[[list[str]], TextBatch]) -> TextBatch:
    """The texts that ``match`` is given, one for each image, tokenised.

    Raises:
        ConfigError: more or fewer texts than images.
    """
    batch = text if isinstance(text, TextBatch) else tokenize(text)
    if len(batch.ids) != num_images:
        raise ConfigError(
            f"match: {len(batch.ids)} texts for {num_images} images; it takes one "
            "for each, `rank` takes several"
        )
    return batch


def is_one_list(texts: RankTexts) -> TypeGuard[Sequence[str]]:
    """Tell whether the candidates that ``rank`` is given are texts for all images alike."""
    return (
        not isinstance(texts, TextBatch)
        and len(texts) > 0
        and all(isinstance(text, str) for text in texts)
    )


def image_major(
    texts: RankTexts, num_images: int, tokenize: Callable[[list[str]], TextBatch]
) -> TextBatch:
    """K candidates for each of B images, as ``rank`` is given them -> B * K rows, image-major.

    Raises:
        ConfigError: not the same number of texts for every image.
    """
    if is_one_list(texts):
        return TextBatch(*(x.repeat(num_images, 1) for x in tokenize(list(texts))))
    if isinstance(texts, TextBatch):
        batch, even = texts, len(texts.ids) % num_images == 0
    else:
        batch = tokenize([text for row in texts for text in row])
        even = len(texts) == num_images and len({len(row) for row in texts}) == 1
    if not even:
        raise ConfigError(
            f"rank: {len(batch.ids)} texts for {num_images} images; it takes the same number for "
            "each"
        )
    return batch
