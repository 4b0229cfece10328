"""A selection as one parquet file: a row for each text, or the columns of recaptioned sets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite.projects.blip.capfilt.table import in_chunks
from lavis_lite.projects.blip.selection.exports.options import Options, whole_file
from lavis_lite.projects.blip.selection.exports.samples import Sample, samples, score_of
from lavis_lite.projects.blip.selection.reading import Selection

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 10_000  # in a group of rows


def write_texts(selection: Selection, target: Path, options: Options) -> int:
    """Write a row for each chosen text: all columns of the selection, with image and fields.

    ``key``, ``index``, ``image`` (path or null), ``image_id``, ``source``, ``text``, ``why``,
    ``score_NAME`` for each score, ``url`` where the rows have one, ``fields`` (JSON).
    """
    import pyarrow as pa

    columns = {
        "key": pa.string(),
        "index": pa.int64(),
        "image": pa.string(),
        "image_id": pa.string(),
        "source": pa.string(),
        "text": pa.string(),
        "why": pa.dictionary(pa.int32(), pa.string()),
        **{f"score_{name}": pa.float64() for name in selection.scores},
        "url": pa.string(),
        "fields": pa.string(),
    }
    rows = (
        {
            **text,
            "image": sample.record["image"],
            "image_id": str(sample.record["image_id"]),
            "url": _field(sample, "url"),
            "fields": json.dumps(sample.record["fields"]),
        }
        for sample in samples(selection)
        for text in sample.texts
    )
    return _write(rows, columns, target, options)


def write_recap(selection: Selection, target: Path, options: Options) -> int:
    """Write a row for each image, with the columns of Recap-DataComp-1B.

    ``url``, ``key``, ``sha256``, ``org_caption`` (the web's), ``re_caption`` (the best chosen
    synthetic text, null where there is none), ``org_NAME_score`` and ``re_NAME_score`` for each
    score: ``org_clip_score`` where a scorer is named ``clip``.
    """
    import pyarrow as pa

    names = selection.scores
    columns = {
        **dict.fromkeys(("url", "key", "sha256", "org_caption", "re_caption"), pa.string()),
        **{f"{which}_{name}_score": pa.float64() for name in names for which in ("org", "re")},
    }
    by = selection.manifest["keep"]["by"] or next(iter(names), None)
    rows = (_recap(sample, names, by) for sample in samples(selection))
    return _write(rows, columns, target, options)


def _recap(sample: Sample, names: list[str], by: str | None) -> dict[str, Any]:
    written = [row for row in sample.texts if row["place"] > 0]
    best: dict[str, Any] = max(written, key=lambda row: score_of(row, by), default={})
    web: dict[str, Any] = next((row for row in sample.texts if row["place"] == 0), {})
    hashed = sample.record.get("image_scores", {}).get("sha256") or _field(sample, "sha256")
    row = {
        "url": _field(sample, "url"),
        "key": sample.key,
        "sha256": hashed,
        "org_caption": sample.web["text"],
        "re_caption": best.get("text"),
    }
    for name in names:
        own = web.get(f"score_{name}")
        row[f"org_{name}_score"] = sample.web["scores"].get(name) if own is None else own
        row[f"re_{name}_score"] = best.get(f"score_{name}")
    return row


def _field(sample: Sample, name: str) -> str | None:
    value = sample.record["fields"].get(name)
    return None if value is None else str(value)


def _write(
    rows: Iterator[dict[str, Any]],
    columns: dict[str, pa.DataType],
    target: Path,
    options: Options,
) -> int:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema, written = pa.schema(list(columns.items())), 0
    with (
        whole_file(target, options) as path,
        parquet.ParquetWriter(path, schema, compression="zstd") as writer,
    ):
        for chunk in in_chunks(rows, _ROWS):
            own = {name: [row.get(name) for row in chunk] for name in columns}
            writer.write_table(pa.table(own, schema=schema))
            written += len(chunk)
    return written
