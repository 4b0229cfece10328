"""The speed of a run as its workers noted it, and the size of their output."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from lavis_lite.projects.blip.capfilt.job import Folder
from lavis_lite.projects.blip.capfilt.layout import DONE
from lavis_lite.runners.run_folder import read_json


@dataclass
class Throughput:
    """Images, and seconds of all workers together by stage.

    ``total`` is from the beginning of a shard to its mark, ``cpu`` what the worker computed
    meanwhile, without its loader processes; ``read`` is waiting for images.
    """

    images: int = 0
    total: float = 0.0
    cpu: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float | None:
        """Return images per second of one worker; None if nothing was computed."""
        return self.images / self.total if self.total else None

    @property
    def images_per_cpu_second(self) -> float | None:
        """Return images per CPU second of one worker; None if nothing was computed."""
        return self.images / self.cpu if self.cpu else None


def read_timings(folder: Folder) -> Throughput:
    """The sum of all shards, those included that were computed anew."""
    throughput = Throughput()
    if not folder.timings.is_file():
        return throughput
    with folder.timings.open(encoding="utf-8") as file:
        for line in file:
            try:
                note = json.loads(line)
            except ValueError:  # cut when its writer was killed
                continue
            seconds = note["seconds"]
            throughput.images += note["images"]
            throughput.total += seconds.pop("total")
            throughput.cpu += seconds.pop("cpu", 0.0)
            for stage, value in seconds.items():
                throughput.stages[stage] = throughput.stages.get(stage, 0.0) + value
    return throughput


def bytes_written(folder: Folder, num_shards: int) -> dict[str, int]:
    """Bytes of all shards by kind of file, as their marks have them: ``{"jsonl": 812, ...}``."""
    sizes: dict[str, int] = {}
    for shard in range(num_shards):
        for name, file in read_json(folder.file(shard, DONE))["files"].items():
            kind = name.partition(".")[2]
            sizes[kind] = sizes.get(kind, 0) + file["size"]
    return sizes
