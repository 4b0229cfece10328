"""Models whose texts look at images: a vision encoder, and a text encoder that reads with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.models.base import Texts, VisionLanguageModel
from lavis_lite.models.images import as_images, as_tokens
from lavis_lite.models.tensors import as_context, as_ids, as_states, rows_in
from lavis_lite.models.texts import as_texts, tokenized
from lavis_lite.modules import vision
from lavis_lite.modules.med.attention import Source
from lavis_lite.modules.med.model import Med, MedDecoder
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.modules.text.wordpiece import WordPiece

FirstToken = Literal["enc", "cls"]


class GroundedModel(VisionLanguageModel):
    """A vision encoder, and a text encoder that reads a text together with its image.

    Args:
        visual_encoder: images (B, 3, H, W) -> tokens (B, N, D), with ``width`` D.
        text_encoder: a tower that looks at such tokens, bare or with a head over the vocabulary.
        tokenizer: its words are those of the text encoder.
        image_size: side of the square input, or its (height, width).
        max_length: tokens that a text is cut to.
    """

    tokenizer: WordPiece
    max_length: int
    first_token: FirstToken = "enc"  # of a text that is read with an image

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_encoder: Med | MedDecoder,
        tokenizer: WordPiece,
        *,
        image_size: ImageSize,
        max_length: int,
    ) -> None:
        super().__init__()
        self.image_size, self.max_length, self.tokenizer = image_size, max_length, tokenizer
        self.visual_encoder = visual_encoder
        self.text_encoder = text_encoder

    @property
    def text_tower(self) -> Med:
        """The tower of the text encoder."""
        encoder = self.text_encoder
        return encoder.bert if isinstance(encoder, MedDecoder) else encoder

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) tokens."""
        return vision.encode(self.visual_encoder, as_images(image, self))

    def tokenize(self, texts: str | Sequence[str]) -> TextBatch:
        """B texts to ids and mask (B, T), [CLS] first."""
        return self.tokenizer.encode(as_texts(texts, "texts"), self.max_length, device=self.device)

    def image_context(self, image_tokens: Tensor) -> Sequence[Source]:
        """(B, N, D) -> the keys and values that texts look at, per layer."""
        return self.text_tower.project(as_tokens(image_tokens, self))

    def read(
        self,
        image_kv: Sequence[Source],
        text: Texts,
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
        image_kv = as_context(image_kv, len(self.text_tower.fusion_layers))
        texts = tokenized(text, self)
        if len(texts.ids) % rows_in(image_kv):
            raise ConfigError(
                f"text: {len(texts.ids)} texts for {rows_in(image_kv)} images; it takes the same "
                "number for each"
            )
        if states is not None:
            as_states(states, self.text_tower.width, "states")
        if query_positions is not None:
            as_ids(query_positions, texts.ids.shape[1], "query_positions")
        batch = self._started(texts)
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
        """True where a text begins to look at its image after the layers that read it alone."""
        same_start = self.first_token == "cls" or self.tokenizer.enc_id == self.tokenizer.cls_id
        return bool(self.text_tower.fusion_layer) and same_start
