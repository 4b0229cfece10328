"""clip: a dual encoder with a contrastive loss over the batch."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build_dual import Projection, build_dual, describe_dual, dual_problems
from lavis_lite.models.dual_encoder import DualEncoder
from lavis_lite.projects.clip.formats import ClipFormats


class Clip(DualEncoder):
    """A dual encoder for losses that compare the pairs of a batch with each other (``info_nce``).

    Reference: CLIP, https://arxiv.org/abs/2103.00020.
    """

    formats = ClipFormats()


@registry.register("model", "clip", check=dual_problems)
@describe_dual
def clip(
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
) -> Clip:
    """A dual encoder for losses that compare the pairs of a batch with each other (``info_nce``).

    Reference: CLIP, https://arxiv.org/abs/2103.00020.
    """
    return build_dual(
        Clip,
        vision,
        text,
        image_size,
        tokenizer,
        embed_width,
        max_length,
        vision_projection,
        text_projection,
        temperature,
        min_temperature,
        gradient_cache,
        losses,
    )
