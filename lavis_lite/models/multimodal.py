"""Texts that are read together with their image: states, matching, ranking, hidden words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lavis_lite.errors import ConfigError
from lavis_lite.models.encoders import Reads, Seeing, Texts
from lavis_lite.models.gradcam import compute_gradcam
from lavis_lite.modules.layers.modes import full_precision
from lavis_lite.modules.med.attention import Source
from lavis_lite.modules.med.model import Med, MedDecoder
from lavis_lite.modules.text.packing import pack_texts
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.modules.text.wordpiece import WordPiece

TOKENS_AT_ONCE = 1024  # of the texts that `rank` reads at a time

RankTexts = Sequence[str] | Sequence[Sequence[str]] | TextBatch


class Reading(Seeing, Reads):
    """The image-grounded text encoder.

    Needs ``visual_encoder``, ``text_encoder``, ``tokenizer``, ``tokenize``.
    """

    tokenizer: WordPiece
    tokenize: Any
    first_token: Literal["enc", "cls"] = "enc"

    def read(
        self,
        image_kv: Sequence[Source],
        text: TextBatch,
        states: Tensor | None = None,
        query_positions: Tensor | None = None,
    ) -> Tensor:
        """Projected images of B rows and K * B texts, image-major -> (K * B, T, D) states.

        ``[ENC]`` takes the place of ``[CLS]``, as in training, unless ``first_token`` is ``cls``.

        Args:
            image_kv: of the images, from ``project`` or ``image_context``.
            text: the texts.
            states: (K * B, T, D) of the texts alone, where they are known and ``fuses_states``:
                reading goes on from there.
            query_positions: (K * B, S) places whose states alone are asked for, and returned.
        """
        batch = self._started(text)
        return self.text_tower(
            batch.ids,
            batch.mask,
            mode="multimodal",
            image_kv=image_kv,
            states=states,
            query_positions=query_positions,
        )

    def _started(self, text: TextBatch) -> TextBatch:
        """The texts with the first token that says that an image is read with them."""
        return text if self.first_token == "cls" else text.replace_first(self.tokenizer.enc_id)

    @property
    def fuses_states(self) -> bool:
        """Whether a text begins to look at its image where reading it alone ends."""
        same_start = self.first_token == "cls" or self.tokenizer.enc_id == self.tokenizer.cls_id
        return bool(self.text_tower.fusion_layer) and same_start


class Filling(Reading):
    """Hidden words, found from the rest of their text and its image.

    Its ``text_encoder`` has a head over the vocabulary. Needs ``max_length`` besides.
    """

    text_encoder: MedDecoder
    max_length: int

    def predict_words(self, image_kv: Sequence[Source], text: TextBatch, places: Tensor) -> Tensor:
        """Projected images and B texts -> (M, V) logits of the words at the places (B, T), bool."""
        return self.text_encoder.cls(self.read(image_kv, text)[places])


class Matching(Reading):
    """Whether a text holds of an image: what reads both, and its head.

    Needs ``itm_head`` besides.
    """

    itm_head: nn.Linear

    @property
    def match_tower(self) -> Med:
        """The tower whose cross-attention reads the image."""
        return self.text_tower

    def match_pairs(
        self, image_kv: Sequence[Source], text: TextBatch, states: Tensor | None = None
    ) -> Tensor:
        """Projected images of B rows and K * B texts, image-major -> (K * B, 2) logits, fp32.

        Under autocast too: half precision would give many texts the same score. ``states`` is as
        of ``read``.
        """
        first = text.ids.new_zeros(len(text.ids), 1)
        return self.judge(self.read(image_kv, text, states, first)[:, 0])

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
        batch = text if isinstance(text, TextBatch) else self.tokenize(text)
        if len(batch.ids) != len(image_tokens):
            raise ConfigError(
                f"match: {len(batch.ids)} texts for {len(image_tokens)} images; it takes one "
                "for each, `rank` takes several"
            )
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
        if is_one_list(texts):
            own = self.tokenize(list(texts))
            batch = TextBatch(*(x.repeat(num_images, 1) for x in own))
        else:
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


def is_one_list(texts: RankTexts) -> TypeGuard[Sequence[str]]:
    """Whether the candidates that ``rank`` is given are texts for all images alike."""
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
