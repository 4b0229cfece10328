"""Images as small data URIs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_SMALL = 96  # up to this many pixels a side an image is kept exactly, and shown with its pixels
_LARGEST = 320
_QUALITY = 82


def is_tiny(image: Image) -> bool:
    """Return whether an image has at most 96 pixels a side."""
    return max(image.size) <= _SMALL


def data_uri(image: Image) -> str:
    """PNG of a tiny image, JPEG of any other, scaled down to 320 pixels."""
    image = image.convert("RGB")
    buffer = io.BytesIO()
    if is_tiny(image):
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((_LARGEST, _LARGEST))
        image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
