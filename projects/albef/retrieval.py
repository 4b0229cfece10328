"""albef_retrieval: finds images by text and texts by image."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.models.retrieval import Retrieval
from lavis_lite.projects.albef.formats import Formats


@registry.register("model", "albef_retrieval")
class AlbefRetrieval(Formats, Retrieval):
    """Image-text contrast and matching, with a momentum copy where a loss asks for one.

    Args:
        vision: the vision encoder's component.
        text: the text encoder's component; from its ``fusion_layer`` on it looks at the image.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        embed_width: width E of the joint space.
        max_length: tokens that a text is cut to.
        momentum: decay of the momentum copy per optimizer step.
        losses: name -> component.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 4.
    """
