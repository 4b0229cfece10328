"""albef_pretrain: contrast, matching and hidden words, with momentum distillation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models import momentum as momentum_copies
from lavis_lite.models.base import LossSpecs, Spec, Texts
from lavis_lite.models.build import build_decoder, build_vision, describe_arguments, width_of
from lavis_lite.models.momentum import MomentumCopy
from lavis_lite.models.retrieval import Retrieval
from lavis_lite.models.tensors import as_mask
from lavis_lite.models.texts import tokenized
from lavis_lite.modules.med.attention import Source
from lavis_lite.modules.med.model import MedDecoder
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.albef.formats import ADDED_TOKENS, AlbefFormats


class AlbefPretrain(Retrieval):
    """A retrieval model whose text encoder finds hidden words, by a head over the vocabulary.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 3.
    """

    formats = AlbefFormats()
    text_encoder: MedDecoder

    def predict_words(self, image_context: Sequence[Source], text: Texts, places: Tensor) -> Tensor:
        """Projected images and B texts -> (M, V) logits of the words at the places (B, T), bool."""
        batch = tokenized(text, self)
        as_mask(places, len(batch.ids), batch.ids.shape[1], "places")
        return self.text_encoder.cls(self.read(image_context, batch)[places.bool()])


@registry.register("model", "albef_pretrain")
@describe_arguments
def albef_pretrain(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 384,
    tokenizer: str | None = None,
    embed_width: int = 256,
    max_length: int = 35,
    momentum: float = 0.995,
    losses: LossSpecs | None = None,
) -> AlbefPretrain:
    """A retrieval model whose text encoder finds hidden words, by a head over the vocabulary.

    Args:
        text: the text encoder's component; from its ``fusion_layer`` on it looks at the image.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 3.
    """
    words = load_tokenizer(tokenizer, ADDED_TOKENS)
    images = build_vision(vision, image_size)
    reader = build_decoder(text, words, source=images)
    model = AlbefPretrain(
        images,
        reader,
        words,
        vision_proj=nn.Linear(width_of(images), embed_width),
        text_proj=nn.Linear(reader.bert.width, embed_width),
        itm_head=nn.Linear(reader.bert.width, 2),
        image_size=image_size,
        max_length=max_length,
    )
    if momentum_copies.asked_for(losses):
        model.momentum = MomentumCopy(model, momentum)
    model.add_losses(losses)
    return model
