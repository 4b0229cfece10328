"""Images as small data URIs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from lavis_lite.report.markup import Html, tag

if TYPE_CHECKING:
    from PIL.Image import Image

_SMALL = 96  # up to this many pixels a side an image is kept exactly, and shown with its pixels
_LARGEST = 320
_QUALITY = 82


def picture(image: Image | None, alt: str, class_: str = "") -> Html:
    """An ``<img>`` that holds its image, at most 320 pixels a side; a grey box where there is none.

    Args:
        image: any mode and size.
        alt: what stands for it where it cannot be seen.
        class_: CSS classes.
    """
    if image is None:
        return tag("div", "no image", class_=f"missing {class_}".strip(), title=alt)
    uri = data_uri(image)
    pixels = "pixels" if max(image.size) <= _SMALL else ""
    classes = " ".join(filter(None, [pixels, class_])) or None
    return tag("img", src=uri, alt=alt, title=alt, class_=classes)


def data_uri(image: Image) -> str:
    """PNG of a tiny image, JPEG of any other, scaled down to 320 pixels."""
    image = image.convert("RGB")
    buffer = io.BytesIO()
    if max(image.size) <= _SMALL:
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((_LARGEST, _LARGEST))
        image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
