"""CapFilt: a shard beside its image encoders alone, and over several processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavis_lite import registry
from lavis_lite.projects.blip.benchmark.inputs import BERT, images, vocabulary
from lavis_lite.projects.blip.capfilt.config import (
    CapfiltConfig,
    CapfiltRunConfig,
    Captioner,
    Filter,
    SourceConfig,
)
from lavis_lite.projects.blip.capfilt.job import open_job
from lavis_lite.projects.blip.capfilt.shard import BadSamples, process_shard
from lavis_lite.projects.blip.capfilt.worker import load_tools
from lavis_lite.registry.cards import whole
from lavis_lite.registry.component import Component
from lavis_lite.runners.benchmark.agreement import Difference
from lavis_lite.runners.benchmark.workloads.photographs import write_photographs

WRITING = {"method": "nucleus", "top_p": 0.9, "min_length": 5, "max_length": 24}


@registry.register("workload", "blip_capfilt")
class CapfiltShard:
    """A shard of photographs, from their files to records on the disk, with random weights.

    Every image is decoded, scaled, captioned (nucleus, up to 20 tokens), and its caption and its
    text from the web are judged. The baseline encodes as many images, in batches of the same size,
    with the image encoders of captioner and filter, and does nothing else: a bound that no CapFilt
    with these models can pass.

    Args:
        type: of the captioner: its sizes.
        filter_type: of the filter.
        vocab_size: tokens of the vocabulary.
        image_size: side that images are scaled to.
        images: in the shard.
        batch: images at a time.
        workers: processes that read ahead.
        device, precision: where, and the autocast format.
    """

    unit = "images"
    baselines = ("image encoders",)

    def __init__(
        self,
        type: str = "base_coco",
        filter_type: str = "base",
        vocab_size: int = BERT,
        image_size: int = 384,
        images: int = 8,
        batch: int = 8,
        workers: int = 0,
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        self.amount, self.batch, self.image_size = images, batch, image_size
        self._files: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
        folder = Path(self._files.name)
        write_photographs(folder / "photographs", images, texts=True)
        sizes = {"tokenizer": vocabulary(vocab_size).name, "image_size": image_size}
        self.config = CapfiltConfig(
            runner=Component("capfilt"),
            data=SourceConfig(
                source=Component("folder", {"path": str(folder / "photographs")}),
                batch_size=batch,
                num_workers=workers,
            ),
            run=CapfiltRunConfig(
                output_dir=str(folder / "out"),
                device=str(device),
                precision=precision,
                num_threads=torch.get_num_threads(),
            ),
            captioner=whole(
                Captioner("blip_caption", sizes, type=type, checkpoint="random", generate=WRITING)
            ),
            filter=whole(
                Filter("blip_image_text_matching", sizes, type=filter_type, checkpoint="random")
            ),
        )
        self.tools, settings = load_tools(self.config, images, device)
        self.job = open_job(self.config, settings, self.tools.source.rows, images)

    def contender(self, name: str) -> Callable[[], int]:
        """Each returns how many images it has been through."""
        if name == "ours":
            return self._shard
        # Made here: drawing them is none of the encoders' work.
        place = self.tools.precision.device
        pixels = images(min(self.batch, self.amount), self.image_size, torch.float32, place)
        return lambda: self._encode(pixels)

    def _shard(self) -> int:
        process_shard(self.job, 0, self.tools, BadSamples(0.0))
        done = self.job.done(0)
        return done["records"] if done else 0

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> int:
        (captioner,), judge = self.tools.captioners.values(), self.tools.filter
        assert judge is not None
        seen = 0
        for start in range(0, self.amount, self.batch):
            batch = pixels[: self.amount - start]
            with self.tools.precision.autocast():
                captioner.model.encode_image(batch)
                judge.model.encode_image(batch)
            seen += len(batch)
        return seen

    def differences(self, baseline: str, ours: int, theirs: int) -> list[Difference]:
        """Compare the numbers of images."""
        return [Difference("images", abs(ours - theirs), 0)]


@registry.register("workload", "blip_capfilt_workers")
class CapfiltWorkers:
    """The runner ``capfilt`` over several processes of one thread each, their start included.

    Args:
        workers: processes.
        rows: of the embedded scenes.
        type: of captioner and filter; ``scenes`` comes with weights.
        shard_size: rows per shard.
        device, precision: where, and the autocast format.
    """

    unit = "images"
    baselines = ()

    def __init__(
        self,
        workers: int = 1,
        rows: int = 2000,
        type: str = "scenes",
        shard_size: int = 125,
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        self.amount, self.device, self.precision = rows, str(device), precision
        self.type, self.workers, self.shard_size = type, workers, shard_size

    def contender(self, name: str) -> Callable[[], dict[str, Any]]:
        """Runs CapFilt into a new folder."""
        runner = Component(
            "capfilt",
            {"executor": "process", "workers": self.workers, "shard_size": self.shard_size},
        )

        def run() -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as folder:
                config = CapfiltConfig(
                    runner=runner,
                    data=SourceConfig(
                        source=Component(
                            "scenes", {"split": "web", "size": self.amount, "image_size": 64}
                        )
                    ),
                    run=CapfiltRunConfig(
                        output_dir=folder,
                        device=self.device,
                        precision=self.precision,
                        report=None,
                    ),
                    captioner=whole(Captioner("blip_caption", type=self.type, generate=WRITING)),
                    filter=whole(Filter("blip_image_text_matching", type=self.type)),
                )
                return registry.build("runner", config.runner.spec, config=config).run()

        return run

    def differences(self, baseline: str, ours: object, theirs: object) -> list[Difference]:
        """Return nothing: there is no baseline to compare with."""
        return []
