"""Facts of image files, whatever the text: hashes, which find copies, and sizes."""

from __future__ import annotations

import hashlib
from typing import ClassVar

from lavis_lite import registry
from lavis_lite.errors import ConfigError
from lavis_lite.projects.blip.capfilt.names import Span
from lavis_lite.projects.blip.capfilt.scoring import ScoreBatch


@registry.register("scorer", "sha256")
class Sha256:
    """The SHA-256 of an image's file: equal files are equal, whatever they are called.

    An image that has no file, such as one that is drawn, is hashed as the PNG that it is stored as.
    """

    of = "image"
    reads = ("files",)

    def score(self, batch: ScoreBatch) -> list[str]:
        """Return 64 hexadecimal digits for each image of a batch."""
        return [hashlib.sha256(file).hexdigest() for file in batch.files]


@registry.register("scorer", "phash")
class PerceptualHash:
    """The perceptual hash of an image: copies at other sizes or qualities differ in few bits.

    Args:
        hash_size: side of the square of bits; 8 gives 64 bits, 16 hexadecimal digits.

    Raises:
        ConfigError: the library imagehash is not installed.
    """

    of = "image"
    reads = ("pictures",)

    def __init__(self, hash_size: int = 8) -> None:
        try:
            import imagehash
        except ImportError:
            raise ConfigError(
                "scorer phash: imagehash is not installed: pip install 'lavis_lite[curation]'"
            ) from None
        if hash_size < 2:
            raise ConfigError(f"scorer phash: hash_size: {hash_size}; at least 2")
        self._hash, self.hash_size = imagehash.phash, hash_size

    def score(self, batch: ScoreBatch) -> list[str]:
        """Return the hash of each image of a batch, in hexadecimal digits."""
        return [str(self._hash(picture, hash_size=self.hash_size)) for picture in batch.pictures]


@registry.register("scorer", "image_size")
class ImageSize:
    """Width and height of an image in pixels, as two scores: ``NAME_width`` and ``NAME_height``."""

    of = "image"
    reads = ("pictures",)
    parts: ClassVar[dict[str, Span]] = {"width": (0.0, 2000.0), "height": (0.0, 2000.0)}

    def score(self, batch: ScoreBatch) -> list[dict[str, int]]:
        """Return the size of each image of a batch."""
        return [dict(zip(self.parts, picture.size, strict=True)) for picture in batch.pictures]
