"""clip: a dual encoder with a contrastive loss over the batch."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.projects.clip.dual import DualEncoder, dual_problems


@registry.register("model", "clip", check=dual_problems)
class Clip(DualEncoder):
    """A dual encoder for losses that compare the pairs of a batch with each other (``info_nce``).

    Args:
        vision: the vision encoder's component.
        text: the text backbone's component: any that needs no image.
        image_size: side of the square input, or its (height, width).
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
        losses: name -> component.

    Reference: CLIP, https://arxiv.org/abs/2103.00020.
    """
