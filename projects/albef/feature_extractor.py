"""albef_feature_extractor: an image and a text as features, apart and together."""

from __future__ import annotations

from torch import nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import Spec
from lavis_lite.models.build import build_text, build_vision, describe_arguments, width_of
from lavis_lite.models.features import FeatureExtraction
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.albef.formats import ADDED_TOKENS, AlbefFormats


class AlbefFeatureExtractor(FeatureExtraction):
    """A pre-trained model's towers and projections, without its heads."""

    formats = AlbefFormats()


@registry.register("model", "albef_feature_extractor")
@describe_arguments
def albef_feature_extractor(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 224,
    tokenizer: str | None = None,
    embed_width: int = 256,
    max_length: int = 40,
) -> AlbefFeatureExtractor:
    """A pre-trained model's towers and projections, without its heads.

    Args:
        text: the text encoder's component; from its ``fusion_layer`` on it looks at the image.
    """
    words = load_tokenizer(tokenizer, ADDED_TOKENS)
    images = build_vision(vision, image_size)
    reader = build_text(text, words, source=images)
    return AlbefFeatureExtractor(
        images,
        reader,
        words,
        vision_proj=nn.Linear(width_of(images), embed_width),
        text_proj=nn.Linear(reader.width, embed_width),
        image_size=image_size,
        max_length=max_length,
    )
