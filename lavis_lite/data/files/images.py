"""Decode a file's bytes to an RGB image; broken files and bombs are refused before decoding."""

from __future__ import annotations

import functools
import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, TypedDict

from PIL import Image, ImageFile, ImageOps

from lavis_lite.data.files.deep_grey import to_rgb
from lavis_lite.data.quiet import silence_decoders
from lavis_lite.errors import DataError
from lavis_lite.registry.shared_arguments import Argument

MAX_PIXELS = 50_000_000
# PIL's other plug-ins are left out: EPS starts a program, others take almost any bytes for theirs.
_FORMATS = {"JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "MPO", "JPEG2000", "AVIF"}
_SNIFFED = 512
# How files are named that are taken for images without looking into them.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
}
_strict_lock = threading.Lock()


class ImageOptions(TypedDict, total=False):
    """The arguments of datasets that say how images are decoded, see ``decode``."""

    exif: Annotated[
        bool, Argument("turn images as their EXIF tag says (the originals ignore it).", False)
    ]
    max_pixels: Annotated[int, Argument("images larger than this are quarantined.", MAX_PIXELS)]


def decode(
    source: Image.Image | bytes | str | os.PathLike,
    *,
    max_pixels: int = MAX_PIXELS,
    exif: bool = False,
) -> Image.Image:
    """An RGB image, loaded, from a path, a file's bytes or a PIL image.

    As the original BLIP's `Image.open(path).convert("RGB")`: transparency is dropped (the colour
    stored under it shows), CMYK and palettes are converted, and of an animation the first frame
    is taken. Grey of 16 or 32 bits or of floats is scaled to 8 bits, where PIL would clip it, see
    ``deep_grey``.

    Args:
        max_pixels: larger images are refused from their header, before they are decoded.
        exif: turn the image as its EXIF tag says; the originals ignore the tag.

    Raises:
        DataError: with a short reason, its kind before a colon: "missing file: cat.jpg",
            "empty file", "not an image: HTML", "truncated image", "too many pixels: 15000 x 15000".
    """
    silence_decoders()
    if isinstance(source, Image.Image):
        return _to_rgb(source, max_pixels, exif)
    with _opened(source) as file:
        head = file.read(_SNIFFED)
        if not head:
            raise DataError("empty file")
        file.seek(0)
        try:
            image = Image.open(file, formats=_formats())
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise DataError(f"too many pixels: more than {max_pixels:,}") from None
        except Exception as error:  # plug-ins raise whatever comes on damaged headers
            raise DataError(f"not an image: {_kind(head, error)}") from None
        with image:
            return _to_rgb(image, max_pixels, exif)


@contextmanager
def _opened(source: bytes | str | os.PathLike) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
        return
    if str(source) == "":
        raise DataError("no image")
    if "://" in str(source):
        raise DataError(f"not a file: {source} (images are not fetched while reading)")
    try:
        path = Path(source)
        # A pipe's open would wait for a writer; a device may give bytes without end.
        special = stat.S_ISFIFO(mode := path.stat().st_mode) or stat.S_ISCHR(mode)
        file = None if special else path.open("rb")
    except FileNotFoundError:
        raise DataError(f"missing file: {source}") from None
    except OSError as error:
        raise DataError(f"unreadable file: {source} ({error.strerror})") from None
    except (ValueError, TypeError) as error:  # a NUL, half a character, a number
        raise DataError(f"not a file: {source!r:.60} ({error})") from None
    if file is None:
        raise DataError(f"not a file: {source} (a pipe or device)")
    with file:
        yield file


def _to_rgb(image: Image.Image, max_pixels: int, exif: bool) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(f"too many pixels: {width} x {height}, the limit is {max_pixels:,}")
    try:
        with _strict():
            image.load()
        if exif:
            image = ImageOps.exif_transpose(image)
        return to_rgb(image)
    except Exception as error:  # see above; a damaged image must not stop a run
        kind = "truncated image" if _is_truncation(error) else f"damaged image: {error}"
        raise DataError(kind) from None


def _is_truncation(error: Exception) -> bool:
    words = str(error).lower()
    return isinstance(error, EOFError) or "truncated" in words or "unexpected end" in words


@contextmanager
def _strict() -> Iterator[None]:
    """Let PIL refuse truncated images in this context, even if another library allowed them."""
    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        yield
        return
    with _strict_lock:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name in _FORMATS)


def _kind(head: bytes, error: object) -> str:
    """Name the likely content of bytes that are not an image."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, kind in (
        (b"<svg", "SVG"),
        (b"<?xml", "SVG" if b"<svg" in start else "XML"),
        (b"<!doctype html", "HTML"),
        (b"<html", "HTML"),
        (b"{", "JSON"),
        (b"%pdf", "PDF"),
        (b"%!ps", "PostScript"),
    ):
        if start.startswith(mark):
            return kind
    if isinstance(error, Image.UnidentifiedImageError):
        return "the format is not known"
    return str(error)
