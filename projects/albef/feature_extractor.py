"""albef_feature_extractor: an image and a text as features, apart and together."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.models.features import FeatureExtraction
from lavis_lite.projects.albef.formats import Formats


@registry.register("model", "albef_feature_extractor")
class AlbefFeatureExtractor(Formats, FeatureExtraction):
    """A pre-trained model's towers and projections, without its heads.

    Args:
        vision: the vision encoder's component.
        text: the text encoder's component; from its ``fusion_layer`` on it looks at the image.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        embed_width: width E of the joint space.
        max_length: tokens that a text is cut to.
    """
