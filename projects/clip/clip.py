"""clip: a dual encoder with a contrastive loss over the batch."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build import describe_arguments
from lavis_lite.projects.clip.build import Projection, build_parts, dual_problems
from lavis_lite.projects.clip.dual import DualEncoder


class Clip(DualEncoder):
    """A dual encoder for losses that compare the pairs of a batch with each other (``info_nce``).

    Reference: CLIP, https://arxiv.org/abs/2103.00020.
    """


@registry.register("model", "clip", check=dual_problems)
@describe_arguments
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

    Args:
        text: the text backbone's component: any that needs no image.
        tokenizer: a WordPiece vocabulary's folder, file or hub id, or ``hf/`` and the folder or hub
            id of any tokenizer; None is an ``hf/*`` tower's own, or the small one of the package.
        embed_width: width E of the joint space; None is that of the image tower.
        max_length: tokens that a text is cut to; None is all that the text tower holds.
        vision_projection: from the pooled image to the joint space: ``linear``, ``affine`` (with a
            bias), or ``none`` where the tower ends there.
        text_projection: likewise of the text.
        temperature: what similarities are divided by at first; it is learnt.
        min_temperature: it is kept from falling below; 0 is no bound.
        gradient_cache: rows of a batch that are encoded at a time in training, for batches whose
            activations don't fit into memory: the same numbers for one more forward pass. 0: all.

    Reference: CLIP, https://arxiv.org/abs/2103.00020.
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
    model = Clip(
        **parts._asdict(),
        image_size=image_size,
        temperature=temperature,
        min_temperature=min_temperature,
        gradient_cache=gradient_cache,
    )
    model.add_losses(losses)
    return model
