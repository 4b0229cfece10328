"""JPEG files to measure reading with: smooth shapes and a little noise, as photographs have."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy
from PIL import Image

WORDS = ("red", "dog", "tree", "house", "street", "water", "blue", "man", "green", "hill")


def photographs(count: int, width: int, height: int, seed: int = 0) -> Iterator[tuple[bytes, str]]:
    """JPEG files and a text of each; the same ones for the same seed.

    Args:
        count: how many.
        width, height: pixels.
        seed: of all of them.
    """
    draw = numpy.random.default_rng(seed)
    for _ in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (9, 12, 3), numpy.uint8))
        smooth = numpy.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), "int16")
        noise = draw.integers(-12, 13, (height, width, 1), "int16")
        pixels = (smooth + noise).clip(0, 255).astype(numpy.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        yield file.getvalue(), " ".join(draw.choice(WORDS, 8))


def write_photographs(
    folder: Path,
    count: int,
    width: int = 512,
    height: int = 384,
    *,
    classes: int = 0,
    texts: bool = False,
) -> Path:
    """Files ``000000.jpg`` ...; in folders ``class_0`` ... by turns where there are classes.

    Args:
        folder: where to.
        count: how many.
        width, height: pixels.
        classes: folders to spread them over; 0: none.
        texts: also write ``000000.txt`` ....
    """
    for number, (file, text) in enumerate(photographs(count, width, height)):
        place = folder / f"class_{number % classes}" if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06d}.jpg").write_bytes(file)
        if texts:
            (place / f"{number:06d}.txt").write_text(f"{text}\n", encoding="utf-8")
    return folder


def write_shards(
    folder: Path, count: int, shards: int, width: int = 512, height: int = 384
) -> list[Path]:
    """Tar shards in the webdataset layout, samples by turns: ``shard-000000.tar`` ...."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"shard-{number:06d}.tar" for number in range(shards)]
    with contextlib.ExitStack() as stack:
        tars = [stack.enter_context(tarfile.open(path, "w")) for path in paths]
        for number, (file, text) in enumerate(photographs(count, width, height)):
            for suffix, content in (("jpg", file), ("txt", text.encode())):
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size = len(content)
                tars[number % shards].addfile(member, io.BytesIO(content))
    return paths
