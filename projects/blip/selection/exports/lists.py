"""A selection as plain lists: keys, the uids of DataComp, and texts beside the images."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy

from lavis_lite.errors import ConfigError, DataError
from lavis_lite.projects.blip.selection.exports.options import Options, whole_file
from lavis_lite.projects.blip.selection.exports.samples import Sample, samples
from lavis_lite.projects.blip.selection.reading import Selection

log = logging.getLogger(__name__)
_UID = re.compile(r"[0-9a-f]{32}")


def write_keys(selection: Selection, target: Path, options: Options) -> int:
    """Write the key of each image with a chosen text, one per line."""
    number, before = 0, None
    with whole_file(target, options) as path, path.open("w", encoding="utf-8") as file:
        for row in selection.rows():
            if (row["shard"], row["index"]) != before:
                file.write(f"{row['key']}\n")
                number += 1
            before = row["shard"], row["index"]
    return number


def write_uids(selection: Selection, target: Path, options: Options) -> int:
    """Write the array that DataComp's training reads: uids as two halves of 64 bits, sorted.

    Raises:
        DataError: rows without a ``uid`` of 32 hexadecimal digits.
    """
    halves = [_uid(sample) for sample in samples(selection)]
    uids = numpy.array(halves, numpy.dtype("u8,u8"))
    uids.sort()
    with whole_file(target, options) as path, path.open("wb") as file:
        numpy.save(file, uids)
    return len(uids)


def _uid(sample: Sample) -> tuple[int, int]:
    uid = sample.record["fields"].get("uid")
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        raise DataError(
            f"{sample.key}: its `uid` is {uid!r:.50}; DataComp's rows have one of 32 hexadecimal "
            "digits. Export `keys` for other data"
        )
    return int(uid[:16], 16), int(uid[16:], 16)


def write_sidecars(selection: Selection, target: Path, options: Options) -> int:
    """Write the best text of each image into a file beside it: ``cat.txt`` for ``cat.jpg``.

    Nothing is written before all images have been looked at.

    Args:
        selection: of images that are files.
        target: the folder that they lie in.
        options: ``prefix``, ``suffix``, and what happens to texts that are there.

    Raises:
        ConfigError: texts are there and ``existing`` says to refuse.
        DataError: an image is no file of the folder.
    """
    folder = target.resolve()
    files = dict(_sidecars(selection, folder))
    there = [path for path in files if path.exists()]
    if there and options.existing == "refuse" and not options.overwrite:
        raise ConfigError(
            f"{len(there):,} of {len(files):,} texts are there already, such as {there[0]}; "
            "--existing skip, overwrite or append says what to do with them"
        )
    number = 0
    for path, text in files.items():
        said = f"{options.prefix}{text}{options.suffix}"
        if path.exists() and options.existing == "skip":
            continue
        if path.exists() and options.existing == "append":
            said = f"{path.read_text('utf-8').rstrip()}\n{said}"
        with whole_file(path, Options(overwrite=True)) as temporary:
            temporary.write_text(f"{said}\n", "utf-8")
        number += 1
    return number


def _sidecars(selection: Selection, folder: Path) -> Iterator[tuple[Path, str]]:
    for sample in samples(selection):
        image = sample.record["image"]
        if image is None:
            raise DataError(
                f"{sample.key}: its image is no file but a member of an archive, or made on the "
                "spot; export webdataset or huggingface"
            )
        path = Path(image).resolve()
        if not path.is_relative_to(folder):
            raise DataError(f"{path}: not in {folder}; name the folder that the images lie in")
        yield path.with_suffix(".txt"), sample.best["text"]
