"""Short videos with sentences, as folders of frames."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from lavis_lite import registry
from lavis_lite.data.files.bad_rows import BadRow, each
from lavis_lite.data.files.image_files import is_image_name
from lavis_lite.data.files.rows import FileOptions
from lavis_lite.data.files.tables import read
from lavis_lite.data.published import cards
from lavis_lite.data.published.base import Published, Row, demand
from lavis_lite.errors import ConfigError, DataError


@registry.register("dataset", "msrvtt_retrieval")
class MsrvttRetrieval(Published, card="msrvtt_retrieval"):
    """MSR-VTT: videos with a sentence each; `image` is a list of `num_frames` frames.

    The frames lie in a folder per video, named by it, in the order of their names; `num_frames` of
    them are taken at equal distances, the first one included, as BLIP does. A video with fewer
    frames shows some twice.
    """

    def __init__(
        self,
        split: str | None = None,
        images: str | None = None,
        annotations: str | list[str] | None = None,
        root: str = cards.ROOT,
        num_frames: int = 8,
        **options: Unpack[FileOptions],
    ):
        if num_frames < 1:
            raise ConfigError(f"msrvtt_retrieval: num_frames: {num_frames}; at least 1")
        self.num_frames = num_frames
        super().__init__(split, images, annotations, root, **options)

    def rows_of(self, files: list[str]) -> Iterator[Row | BadRow]:
        """Rows of BLIP's JSON lines (`clip_name`) and LAVIS's JSON list (`video`)."""
        for file in files:
            rows = read(file, "jsonl" if ".jsonl" in Path(file).suffixes else "json")
            yield from each(rows, functools.partial(_clip, file=file))

    def _row(self, number: int) -> Row:
        row = super()._row(number)
        folder = Path(row["image"])
        if not folder.is_dir():
            raise DataError(f"missing folder of frames: {folder}")
        frames = sorted(file for file in folder.iterdir() if is_image_name(file.name))
        if not frames:
            raise DataError(f"no frames in {folder}")
        places = [place * len(frames) // self.num_frames for place in range(self.num_frames)]
        return {**row, "image": [str(frames[place]) for place in places]}

    def _annotation(self, number: int) -> Row:
        row = super(Published, self)._row(number)
        del row["image"]
        return row


def _clip(row: Row, file: str) -> Row:
    name = row.get("clip_name") or Path(str(row.get("video", ""))).stem
    if not name:
        demand(row, ("clip_name",), file)
    demand(row, ("caption",), file)
    return {"image": name, "image_id": name, "caption": row["caption"]}
