"""Reading images for training, beside torchvision and webdataset with the same transform."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from lavis_lite import registry
from lavis_lite.data.loader import TrainData
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.data.reader import Processors
from lavis_lite.errors import ConfigError
from lavis_lite.runners.benchmark.agreement import Difference, of_lists
from lavis_lite.runners.benchmark.workloads.photographs import write_photographs, write_shards

Read = Callable[[], list[Any]]
CLASSES, SHARDS = 4, 4


class Reading:
    """A turn through all images in random order, from files to batches of pixels.

    The start of the loader processes is a part of it, on both sides.

    Args:
        images: files; they are made on the spot.
        width, height: of the files.
        size: side of the crops.
        batch: images per batch; it has to divide ``images``.
        workers: loader processes.
        device, precision: of no effect.
    """

    arithmetic = False
    unit = "images"
    baselines: tuple[str, ...] = ()
    field: str  # of the samples: what is compared

    def __init__(
        self,
        images: int = 256,
        width: int = 512,
        height: int = 384,
        size: int = 384,
        batch: int = 32,
        workers: int = 2,
        *,
        device: torch.device | None = None,
        precision: str = "fp32",
    ) -> None:
        self.amount, self.batch, self.workers = images - images % batch, batch, workers
        self._files: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
        self.transform = registry.build("processor", {"name": "blip_image_train"}, image_size=size)
        self.data = TrainData(
            [registry.build("dataset", self.write(Path(self._files.name), images, width, height))],
            [None],
            Processors(self.transform, registry.build("processor", {"name": "blip_caption"})),
            batch_size=batch,
            num_workers=workers,
            seed=0,
            quarantine=Quarantine(None),
        )

    def write(self, folder: Path, images: int, width: int, height: int) -> dict[str, Any]:
        """Make the files; returns the dataset that ours reads."""
        raise NotImplementedError

    def theirs(self) -> Iterable[Any]:
        """The baseline's loader, of pairs: pixels, and what is compared."""
        raise NotImplementedError

    def contender(self, name: str) -> Read:
        """Each reads everything once and returns what is compared, of all samples."""
        if name != "ours":
            loader = self.theirs()
            return lambda: collect(column for _, column in loader)
        steps = self.amount // self.batch
        return lambda: collect(batch[self.field] for batch in self.data.batches(0, steps))

    def differences(self, baseline: str, ours: list[Any], theirs: list[Any]) -> list[Difference]:
        """Both have read every image once: the fields of all of them are the same."""
        return [of_lists("samples", sorted(ours), sorted(theirs))]


def collect(columns: Iterable[Any]) -> list[Any]:
    """The values of all batches in one list."""
    return [
        value
        for column in columns
        for value in (column.tolist() if isinstance(column, torch.Tensor) else column)
    ]


@registry.register("workload", "image_folder")
class ImageFolderReading(Reading):
    """JPEG files in class folders, beside torchvision's ImageFolder and torch's DataLoader.

    Their labels are compared. The arguments are those of ``Reading``.
    """

    baselines = ("torchvision",)
    field = "label"

    def write(self, folder: Path, images: int, width: int, height: int) -> dict[str, Any]:
        self.folder = write_photographs(folder, images, width, height, classes=CLASSES)
        return {"name": "class_folders", "path": str(self.folder)}

    def theirs(self) -> Iterable[Any]:
        """Reads the folders."""
        from torch.utils.data import DataLoader
        from torchvision.datasets import ImageFolder

        dataset = ImageFolder(str(self.folder), transform=self.transform)
        return DataLoader(dataset, self.batch, shuffle=True, num_workers=self.workers)


@registry.register("workload", "shard_reading")
class ShardReading(Reading):
    """JPEG files in four tar shards, beside the package webdataset by itself.

    The baseline streams the shards, each loader process its own, and shuffles in a buffer; ours
    reads samples by position, in a random order of all. Their texts are compared. The arguments are
    those of ``Reading``.
    """

    baselines = ("webdataset",)
    field = "text_input"

    def write(self, folder: Path, images: int, width: int, height: int) -> dict[str, Any]:
        self.shards = [str(path) for path in write_shards(folder, images, SHARDS, width, height)]
        return {"name": "webdataset", "shards": self.shards}

    def theirs(self) -> Iterable[Any]:
        """Streams the shards."""
        try:
            import webdataset
        except ImportError:
            raise ConfigError(
                "shard_reading: its baseline is not installed: pip install webdataset"
            ) from None

        dataset = (
            webdataset.WebDataset(self.shards, shardshuffle=False, empty_check=False)
            .shuffle(100)
            .decode("pil")
            .to_tuple("jpg", "txt")
            .map_tuple(self.transform, str)
            .batched(self.batch, partial=True)
        )
        return webdataset.WebLoader(dataset, batch_size=None, num_workers=self.workers)
