"""clip_feature_extractor: an image and a text as features of one space."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.projects.clip.dual import DualEncoder, dual_problems


@registry.register("model", "clip_feature_extractor", check=dual_problems)
class ClipFeatureExtractor(DualEncoder):
    """The towers and projections of ``clip``, under the calls of LAVIS.

    Args:
        vision: the vision encoder's component.
        text: the text backbone's component: any that needs no image.
        image_size: side of the square input, or its (height, width).
        tokenizer: as of ``clip``.
        embed_width: width E of the joint space; None is that of the image tower.
        max_length: tokens that a text is cut to; None is all that the text tower holds.
        vision_projection: from the pooled image to the joint space: ``linear``, ``affine`` or
            ``none``.
        text_projection: likewise of the text.
        temperature: what similarities are divided by.
        min_temperature: as of ``clip``.
        gradient_cache: as of ``clip``.
        losses: name -> component; none are needed to extract.
    """
