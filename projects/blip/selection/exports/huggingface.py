"""A selection as a Hugging Face dataset: parquet with the images inside, and a card."""

from __future__ import annotations

import itertools
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import lavis_lite
from lavis_lite.errors import DataError
from lavis_lite.io.redaction import redacted
from lavis_lite.projects.blip.capfilt.reading import read_job
from lavis_lite.projects.blip.selection.exports.options import Options, whole_folder
from lavis_lite.projects.blip.selection.exports.samples import ImageFiles, Sample, samples
from lavis_lite.projects.blip.selection.reading import Selection

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
_GROUP = 100  # images in a group of rows: readers take a group at a time
# The settings of a run that say what models it had; their sizes are elsewhere.
_MODELS = re.compile(
    r"(captioner|filter|scorers)(\[\d+\])?\.(model\.)?"
    r"(name|called|type|checkpoint|source|score|threshold|keep_fraction|generate\.\S+)"
    r"|weights of .*"
)


def write_dataset(selection: Selection, target: Path, options: Options) -> int:
    """Write a folder that ``datasets.load_dataset`` reads without a network.

    A row for each image: ``image``, ``key``, ``text`` (the best), ``texts`` and ``sources`` (all
    chosen ones), ``scores`` (of ``text``, by name), ``fields`` (JSON).
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    number = selection.manifest["counts"]["images_with_a_text"]
    num_shards = max(1, -(-number // options.shard_size))
    schema = _schema(selection)
    images, every, written = ImageFiles(selection.records), samples(selection), 0
    with whole_folder(target, options) as folder:
        (folder / "data").mkdir()
        for shard in range(num_shards):
            size = number * (shard + 1) // num_shards - number * shard // num_shards
            name = f"train-{shard:05d}-of-{num_shards:05d}.parquet"
            mine = itertools.islice(every, size)
            with parquet.ParquetWriter(folder / "data" / name, schema) as writer:
                while group := list(itertools.islice(mine, _GROUP)):
                    rows = [row for sample in group if (row := _row(sample, images, selection))]
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    written += len(rows)
        (folder / "README.md").write_text(card(selection, written, options), "utf-8")
    return written


def _schema(selection: Selection) -> pa.Schema:
    import pyarrow as pa

    scores = pa.struct([(name, pa.float64()) for name in selection.scores])
    columns = [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("key", pa.string()),
        ("text", pa.string()),
        ("texts", pa.list_(pa.string())),
        ("sources", pa.list_(pa.string())),
        *([("scores", scores)] if selection.scores else []),
        ("fields", pa.string()),
    ]
    return pa.schema(columns)


def _row(sample: Sample, images: ImageFiles, selection: Selection) -> dict[str, Any] | None:
    try:
        data, extension = images.read(sample)
    except DataError as error:
        log.warning("left out: %s", error)
        return None
    return {
        "image": {"bytes": data, "path": f"{sample.record['index']:09d}.{extension}"},
        "key": sample.key,
        "text": sample.best["text"],
        "texts": [row["text"] for row in sample.texts],
        "sources": [row["source"] for row in sample.texts],
        "scores": {name: sample.best[f"score_{name}"] for name in selection.scores},
        "fields": json.dumps(sample.record["fields"]),
    }


def _features(selection: Selection) -> list[dict[str, Any]]:
    def text(name: str) -> dict[str, Any]:
        return {"name": name, "dtype": "string"}

    numbers = [{"name": name, "dtype": "float64"} for name in selection.scores]
    return [
        {"name": "image", "dtype": "image"},
        text("key"),
        text("text"),
        {"name": "texts", "list": "string"},
        {"name": "sources", "list": "string"},
        *([{"name": "scores", "struct": numbers}] if numbers else []),
        text("fields"),
    ]


def card(selection: Selection, number: int, options: Options) -> str:
    """Return the card of the dataset: what it has, and how it was made."""
    head = {
        "license": options.license,
        "task_categories": ["image-to-text", "text-to-image"],
        "tags": ["synthetic", "lavis_lite"],
        "configs": [{"config_name": "default", "data_files": "data/*.parquet"}],
        "dataset_info": {
            "features": _features(selection),
            "splits": [{"name": "train", "num_examples": number}],
        },
    }
    manifest = selection.manifest
    counts, job = manifest["counts"], read_job(selection.records)
    settings = job.get("settings", {})
    models = {k: v for k, v in settings.items() if _MODELS.fullmatch(k) and v is not None}
    rules = [f"1. {rule['title']}: {_count(own):,} texts dropped" for rule, own in _rules(manifest)]
    source = json.dumps(redacted(job["source"]))
    lines = [
        f"# {selection.path.name}",
        "",
        f"{number:,} images with {_count(counts['chosen']):,} texts, chosen of "
        f"{counts['images']:,} images with {_count(counts['texts']):,} texts.",
        "",
        "## How it was made",
        "",
        f"Captions and scores by CapFilt of lavis_lite {lavis_lite.__version__}, of the source "
        f"`{source}`. Licence of the source: {options.license}.",
        "",
        *(f"- `{name}`: `{value}`" for name, value in sorted(models.items())),
        "",
        "Texts were then chosen by these rules, in order:",
        "",
        *rules,
        f"1. kept of each image: {manifest['keep']['title']}",
        "",
        f"Fingerprint of the selection: `{manifest['fingerprint']}`.",
        "",
        "## Columns",
        "",
        "`text` is the best text of the image, `texts` are all that were chosen, `sources` tells "
        "who wrote each (`web`: it came with the image), `scores` are those of `text`, `fields` "
        "holds the other fields of the sample as JSON.",
        "",
    ]
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n" + "\n".join(lines)


def _rules(manifest: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, int]]]:
    return list(zip(manifest["rules"], manifest["counts"]["rules"], strict=True))


def _count(by_origin: dict[str, int]) -> int:
    return sum(by_origin.values())
