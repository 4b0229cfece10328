"""text_language: a language model by itself, to be trained on texts before it is told of images."""

from __future__ import annotations

from torch import Tensor

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import Losses, LossSpecs, Spec, VisionLanguageModel
from lavis_lite.models.build import describe_arguments
from lavis_lite.models.images import as_images
from lavis_lite.models.tensors import as_states
from lavis_lite.models.texts import texts_of
from lavis_lite.modules.language.loading import Language
from lavis_lite.modules.output import Samples


class TextLanguage(VisionLanguageModel):
    """A language model that learns the texts of samples and looks at no image.

    Args:
        language: any model of the kind ``language_model``.
        max_length: tokens that a text is cut to.
        image_size: of the images that the samples have; they are not looked at.
        losses: name -> loss.
    """

    vision_towers = ()
    text_towers = ("language",)

    def __init__(
        self,
        language: Language,
        *,
        max_length: int = 32,
        image_size: ImageSize = 64,
        losses: Losses | None = None,
    ) -> None:
        super().__init__()
        self.image_size, self.max_length = image_size, max_length
        self.language = language
        self.add_losses(losses)

    def encode_image(self, image: Tensor) -> Tensor:
        """Return nothing of images (B, 3, H, W): (B, 0, D) tokens."""
        images = as_images(image, self)
        return images.new_zeros(len(images), 0, self.language.width)

    def text_logits(self, image_tokens: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
        """Return logits (B, T, V) of the samples' ``text_input``, and targets (B, T)."""
        tokens = as_states(
            image_tokens, self.language.width, "image_tokens", "B, N, D", "`encode_image(image)`"
        )
        texts = texts_of(samples, len(tokens))
        return self.language.text_logits(tokens, None, texts, self.max_length, self.max_length)


@registry.register("model", "text_language")
@describe_arguments
def text_language(
    language: Spec,
    max_length: int = 32,
    image_size: ImageSize = 64,
    losses: LossSpecs | None = None,
) -> TextLanguage:
    """A language model that learns the texts of samples and looks at no image.

    Args:
        image_size: of the images that the samples have; they are not looked at.
    """
    writer = registry.build("language_model", language)
    model = TextLanguage(writer, max_length=max_length, image_size=image_size)
    model.add_losses(losses)
    return model
