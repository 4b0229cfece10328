"""blip_caption: describes an image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models import captioning
from lavis_lite.models.base import Losses, LossSpecs, Spec, VisionLanguageModel
from lavis_lite.models.build import build_decoder, build_vision, describe_arguments
from lavis_lite.models.images import as_images, as_tokens
from lavis_lite.models.texts import as_texts
from lavis_lite.modules import vision as vision_tokens
from lavis_lite.modules.med.attention import KeyValue
from lavis_lite.modules.med.model import MedDecoder
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.modules.text.wordpiece import WordPiece
from lavis_lite.projects.blip import captioning as grounded
from lavis_lite.projects.blip.formats import BlipFormats


class BlipCaption(VisionLanguageModel):
    """A vision encoder and a text decoder that looks at it.

    Args:
        visual_encoder: images (B, 3, H, W) -> tokens (B, N, D), any module.
        text_decoder: looks at tokens of that width D.
        tokenizer: its words are those of the text decoder.
        prompt: what every caption starts with. Texts to train on start with it too; it is given to
            the model, not learnt, and removed from output.
        max_length: tokens that a text is cut to in training.
        image_size: side of the square input, or its (height, width).
        losses: name -> loss.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.
    """

    formats = BlipFormats()
    prompt_ids = captioning.prompt_ids
    generate = captioning.generate
    max_positions = property(grounded.max_positions)
    decoder_of = grounded.decoder_of
    decode_logits = grounded.decode_logits

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_decoder: MedDecoder,
        tokenizer: WordPiece,
        *,
        prompt: str = "a picture of ",
        max_length: int = 40,
        image_size: ImageSize = 384,
        losses: Losses | None = None,
    ) -> None:
        super().__init__()
        self.image_size, self.max_length, self.tokenizer = image_size, max_length, tokenizer
        self.visual_encoder = visual_encoder
        self.text_decoder = text_decoder
        self.prompt = prompt
        self.prompt_length = len(self.prompt_ids())
        self.add_losses(losses)

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) tokens."""
        return vision_tokens.encode(self.visual_encoder, as_images(image, self))

    def tokenize(self, texts: str | Sequence[str]) -> TextBatch:
        """B texts to ids and mask (B, T), [CLS] first."""
        return self.tokenizer.encode(as_texts(texts, "texts"), self.max_length, device=self.device)

    def image_context(self, image_tokens: Tensor) -> list[KeyValue]:
        """(B, N, D) -> the keys and values that texts look at, per layer."""
        return self.text_decoder.bert.project(as_tokens(image_tokens, self))


@registry.register("model", "blip_caption")
@describe_arguments
def blip_caption(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 384,
    tokenizer: str | None = None,
    prompt: str = "a picture of ",
    max_length: int = 40,
    losses: LossSpecs | None = None,
) -> BlipCaption:
    """A vision encoder and a text decoder that looks at it.

    Args:
        text: the decoder's component.
        prompt: what every caption starts with. Texts to train on start with it too (the text
            processor puts it there); it is given to the model, not learnt, and removed from output.
        max_length: tokens that a text is cut to in training.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.
    """
    words = load_tokenizer(tokenizer)
    images = build_vision(vision, image_size)
    writer = build_decoder(text, words, source=images)
    model = BlipCaption(
        images, writer, words, prompt=prompt, max_length=max_length, image_size=image_size
    )
    model.add_losses(losses)
    return model
