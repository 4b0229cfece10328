"""Texts that are read together with their image: states, matching, ranking, classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lavis_lite.errors import ConfigError
from lavis_lite.interfaces import Samples
from lavis_lite.losses.shared import Shared
from lavis_lite.modes import eval_mode, full_precision
from lavis_lite.projects.blip.gradcam import compute_gradcam
from lavis_lite.projects.blip.towers import Texts, texts_of
from lavis_lite.text.attention import KeyValue
from lavis_lite.text.med import Med
from lavis_lite.text.tokenizer import TextBatch, WordPiece
from lavis_lite.vision import encode


class Reading:
    """The image-grounded text encoder.

    Needs ``text_encoder``, ``tokenizer``, ``tokenize``.
    """

    text_encoder: Med
    tokenizer: WordPiece
    tokenize: Any
    first_token: Literal["enc", "cls"] = "enc"

    def read(self, image_kv: list[KeyValue], text: TextBatch) -> Tensor:
        """Projected images of B rows and K * B texts, image-major -> (K * B, T, D) states.

        ``[ENC]`` takes the place of ``[CLS]``, as in training, unless ``first_token`` is ``cls``.
        """
        enc_id = self.tokenizer.enc_id
        batch = text if self.first_token == "cls" else text.replace_first(enc_id)
        return self.text_encoder(batch.ids, batch.mask, mode="multimodal", image_kv=image_kv)


class Matching(Reading):
    """Whether a text holds of an image: what reads both, and its head.

    Needs ``itm_head`` besides.
    """

    itm_head: nn.Linear

    @property
    def match_tower(self) -> Med:
        """The tower whose cross-attention reads the image."""
        return self.text_encoder

    def match_pairs(self, image_kv: list[KeyValue], text: TextBatch) -> Tensor:
        """Projected images of B rows and K * B texts, image-major -> (K * B, 2) logits, fp32.

        Under autocast too: half precision would give many texts the same score.
        """
        states = self.read(image_kv, text)
        head = self.itm_head
        with full_precision(states.device):
            return linear(states[:, 0].float(), head.weight.float(), head.bias.float())

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
        return self.match_pairs(self.text_encoder.project(image_tokens), batch)

    def rank(
        self, image_tokens: Tensor, texts: Sequence[str] | Sequence[Sequence[str]] | TextBatch
    ) -> Tensor:
        """(B, N, D) and K texts per image -> (B, K) logits of "matches".

        The image is projected once; its texts are folded onto it.

        Args:
            image_tokens: from ``encode_image``.
            texts: K texts for each image; K texts for all of them; or rows that are tokenised
                already, image-major.

        Raises:
            ConfigError: not the same number of texts for every image.
        """
        num_images = len(image_tokens)
        batch: TextBatch
        if isinstance(texts, TextBatch):
            batch, even = texts, len(texts.ids) % num_images == 0
        elif texts and all(isinstance(text, str) for text in texts):
            own = self.tokenize(list(texts))
            batch, even = TextBatch(*(x.repeat(num_images, 1) for x in own)), True
        else:
            batch = self.tokenize([text for row in texts for text in row])
            even = len(texts) == num_images and len({len(row) for row in texts}) == 1
        if not even:
            raise ConfigError(
                f"rank: {len(batch.ids)} texts for {num_images} images; it takes the same "
                "number for each"
            )
        kv = self.text_encoder.project(image_tokens)
        return self.match_pairs(kv, batch)[:, 1].unflatten(0, (num_images, -1))

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


class Classifying(Reading):
    """The class of an image with its text: what reads both, and a head of two layers.

    Needs ``visual_encoder`` and ``cls_head`` besides.
    """

    visual_encoder: nn.Module
    cls_head: nn.Module
    device: torch.device
    looks_at: tuple[str, ...] = ("image",)  # the images of a sample, by name

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) tokens."""
        return encode(self.visual_encoder, image)

    def image_kv(self, shared: Shared) -> list[KeyValue]:
        """What the text looks at: the projected images of a step."""
        return shared.kv(self.text_encoder)

    def classify(self, shared: Shared) -> Tensor:
        """(B, C) logits of a step's pairs, fp32."""
        return self.cls_head(self.read(self.image_kv(shared), shared.text)[:, 0]).float()

    def predict(self, samples: Samples) -> dict[str, Any]:
        """Logits of a batch, without gradients and dropout.

        Args:
            samples: images and texts as for training; ``label`` (B,) where it is known.

        Returns:
            ``predictions`` (B, C) logits and ``targets``, the labels (None where unknown).

        Raises:
            ConfigError: samples without an image, or not one text for each.
        """
        if missing := [name for name in self.looks_at if name not in samples]:
            raise ConfigError(f"predict: the samples have no {', '.join(missing)}")
        given = {
            key: value.to(self.device) if isinstance(value, Tensor) else value
            for key, value in samples.items()
        }
        given["text_input"] = texts_of(samples, len(given[self.looks_at[0]]))
        with torch.no_grad(), eval_mode(self):
            logits = self.classify(Shared(self, given))
        return {"predictions": logits, "targets": given.get("label")}


def class_head(width: int, num_classes: int) -> nn.Sequential:
    """(B, D) -> (B, C) logits: two layers with a ReLU between them."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, num_classes))
