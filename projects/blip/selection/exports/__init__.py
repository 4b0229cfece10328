"""A selection in the formats of other tools: one file for each way of writing.

samples.py    the images of a selection with their texts
tables.py     parquet: own columns, and those of recaptioned sets
shards.py     webdataset
huggingface.py  a dataset folder with its card
lists.py      keys, uids of DataComp, texts beside the images
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lavis_lite.errors import ConfigError, suggest
from lavis_lite.projects.blip.selection.exports.huggingface import write_dataset
from lavis_lite.projects.blip.selection.exports.lists import write_keys, write_sidecars, write_uids
from lavis_lite.projects.blip.selection.exports.options import Options
from lavis_lite.projects.blip.selection.exports.shards import write_shards
from lavis_lite.projects.blip.selection.exports.tables import write_recap, write_texts
from lavis_lite.projects.blip.selection.reading import Selection

EXPORTS: dict[str, Callable[[Selection, Path, Options], int]] = {
    "parquet": write_texts,
    "recap": write_recap,
    "webdataset": write_shards,
    "huggingface": write_dataset,
    "datacomp": write_uids,
    "keys": write_keys,
    "sidecar": write_sidecars,
}


def export(selection: str | Path, kind: str, target: str | Path, options: Options) -> int:
    """Write a selection for another tool.

    Args:
        selection: its folder.
        kind: one of ``EXPORTS``.
        target: file or folder to write; of ``sidecar`` the folder that the images lie in.
        options: see there.

    Returns:
        How many images, or texts, were written.

    Raises:
        ConfigError: no such kind, or something is there already and may not be overwritten.
        DataError: the selection cannot be read, or lacks what the format needs.
    """
    if kind not in EXPORTS:
        raise ConfigError(f"no export {kind!r}.{suggest(kind, EXPORTS)} Known: {list(EXPORTS)}")
    return EXPORTS[kind](Selection(selection), Path(target), options)


__all__ = ["EXPORTS", "Options", "export"]
