"""siglip: a dual encoder with an independent sigmoid loss per image-text pair."""

from __future__ import annotations

import functools

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build_dual import Projection, build_dual, describe_dual, dual_problems
from lavis_lite.models.dual_encoder import PairwiseDualEncoder
from lavis_lite.projects.clip.formats import ClipFormats


class Siglip(PairwiseDualEncoder):
    """A dual encoder with a learnt bias, for the loss ``sigmoid``; so its cosines are calibrated.

    Reference: SigLIP, https://arxiv.org/abs/2303.15343.
    """

    formats = ClipFormats()


@registry.register("model", "siglip", check=dual_problems)
@describe_dual
def siglip(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 224,
    tokenizer: str | None = None,
    embed_width: int | None = None,
    max_length: int | None = None,
    vision_projection: Projection = "none",
    text_projection: Projection = "affine",
    temperature: float = 0.1,
    min_temperature: float = 0.0,
    logit_bias: float = -10.0,
    gradient_cache: int = 0,
    losses: LossSpecs | None = None,
) -> Siglip:
    """A dual encoder with a learnt bias, for the loss ``sigmoid``; so its cosines are calibrated.

    Args:
        logit_bias: what is added to a pair's logit at first; it is learnt.

    Reference: SigLIP, https://arxiv.org/abs/2303.15343.
    """
    return build_dual(
        functools.partial(Siglip, logit_bias=logit_bias),
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
