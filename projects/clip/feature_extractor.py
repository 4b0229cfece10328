"""clip_feature_extractor: an image and a text as features of one space."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build import describe_arguments
from lavis_lite.projects.clip.build import Projection, build_parts, dual_problems
from lavis_lite.projects.clip.dual import DualEncoder


class ClipFeatureExtractor(DualEncoder):
    """The towers and projections of ``clip``, under the calls of LAVIS."""


@registry.register("model", "clip_feature_extractor", check=dual_problems)
@describe_arguments
def clip_feature_extractor(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 224,
    tokenizer: str | None = None,
    embed_width: int | None = 512,
    max_length: int | None = None,
    vision_projection: Projection = "linear",
    text_projection: Projection = "linear",
    temperature: float = 0.07,
    min_temperature: float = 0.01,
    gradient_cache: int = 0,
    losses: LossSpecs | None = None,
) -> ClipFeatureExtractor:
    """The towers and projections of ``clip``, under the calls of LAVIS.

    Args:
        text: the text backbone's component: any that needs no image.
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
    parts = build_parts(
        vision,
        text,
        image_size,
        tokenizer,
        embed_width,
        max_length,
        vision_projection,
        text_projection,
    )
    model = ClipFeatureExtractor(
        **parts._asdict(),
        image_size=image_size,
        temperature=temperature,
        min_temperature=min_temperature,
        gradient_cache=gradient_cache,
    )
    model.add_losses(losses)
    return model
