"""A selection as webdataset: tar shards as img2dataset names them, for open_clip and others.

::

    00000.tar          000000000.jpg  000000000.txt  000000000.json  000000001.jpg ...
    00000_stats.json   counts of the shard
    sizes.json         {"00000.tar": images}, which open_clip takes the number of samples from

The ``.txt`` has the best text. The ``.json`` has the fields of the sample, and as strings
``caption`` and ``caption_best`` (the best text), ``caption_web`` (where the web's was chosen) and
``caption_SOURCE_0``, ``caption_SOURCE_1`` ... (texts by captioner SOURCE): what
``--json-text-key`` of open_clip takes.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import re
import tarfile
from pathlib import Path
from typing import Any

from lavis_lite.errors import DataError
from lavis_lite.projects.blip.selection.exports.options import Options, whole_folder
from lavis_lite.projects.blip.selection.exports.samples import ImageFiles, Sample, samples
from lavis_lite.projects.blip.selection.reading import Selection

log = logging.getLogger(__name__)


def write_shards(selection: Selection, target: Path, options: Options) -> int:
    """Write tar shards of about equal size; images that cannot be read are left out and counted."""
    number = selection.manifest["counts"]["images_with_a_text"]
    num_shards = max(1, -(-number // options.shard_size))
    images, every, total = ImageFiles(selection.records), samples(selection), 0
    sizes: dict[str, int] = {}
    digits = max(4, len(str(options.shard_size - 1)))
    with whole_folder(target, options) as folder:
        for shard in range(num_shards):
            size = number * (shard + 1) // num_shards - number * shard // num_shards
            name, failures = f"{shard:05d}.tar", 0
            with tarfile.open(folder / name, "w", format=tarfile.GNU_FORMAT) as tar:
                for place, sample in enumerate(itertools.islice(every, size)):
                    failures += not _put(tar, f"{shard:05d}{place:0{digits}d}", sample, images)
            sizes[name] = size - failures
            total += size - failures
            stats = {
                "count": size,
                "successes": size - failures,
                "failed_to_download": failures,
                "failed_to_resize": 0,
                "status_dict": {"success": size - failures},
            }
            (folder / f"{shard:05d}_stats.json").write_text(json.dumps(stats, indent=4), "utf-8")
        (folder / "sizes.json").write_text(json.dumps(sizes), "utf-8")
    return total


def _put(tar: tarfile.TarFile, name: str, sample: Sample, images: ImageFiles) -> bool:
    """Write the members of a sample; False where its image cannot be read."""
    try:
        data, extension = images.read(sample)
    except DataError as error:
        log.warning("left out: %s", error)
        return False
    text = sample.best["text"]
    about = json.dumps(about_sample(sample), ensure_ascii=False)
    members = {extension: data, "txt": text.encode(), "json": about.encode("utf-8", "replace")}
    for suffix, content in members.items():
        member = tarfile.TarInfo(f"{name}.{suffix}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return True


def about_sample(sample: Sample) -> dict[str, Any]:
    """Return the object of the ``.json`` member: captions are strings of their own."""
    about: dict[str, Any] = {**sample.record["fields"], "key": sample.key}
    about |= {"caption": sample.best["text"], "caption_best": sample.best["text"]}
    numbers: dict[str, int] = {}
    for row in sample.texts:
        if row["place"] == 0:
            about["caption_web"] = row["text"]
            continue
        source = re.sub(r"\W+", "_", row["source"])
        number = numbers[source] = numbers.get(source, -1) + 1
        about[f"caption_{source}_{number}"] = row["text"]
    return about
