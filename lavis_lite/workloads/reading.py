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
from lavis_lite.measuring.agreement import Difference, of_lists
from lavis_lite.workloads.photographs import write_photographs, write_shards

Read = Callable[[], list[Any]]


class Reading:
    """A turn through all images in random order, from files to batches of pixels.

    The start of the loader processes is a part of it, on both sides. Built with ``spec``, the
    dataset that ours reads.
    """

    arithmetic = False
    unit = "images"
    baselines: tuple[str, ...] = ()

    def __init__(self, spec: dict[str, Any], images: int, batch: int, size: int, workers: int):
        self.amount, self.batch, self.workers = images - images % batch, batch, workers
        self.transform = registry.build("processor", {"name": "blip_image_train"}, image_size=size)
        self.data = TrainData(
            [registry.build("dataset", spec)],
            [None],
            Processors(self.transform, registry.build("processor", {"name": "blip_caption"})),
            batch_size=batch,
            num_workers=workers,
            seed=0,
            quarantine=Quarantine(None),
        )

    def ours(self, field: str) -> Read:
        """Reads everything once; returns a field of all samples."""

        def read() -> list[Any]:
            return collect(b[field] for b in self.data.batches(0, self.amount // self.batch))

        return read

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

    Args:
        images: files; they are made on the spot.
        width, height: of the files.
        size: side of the crops.
        batch: images per batch; it has to divide ``images``.
        workers: loader processes.
        device, precision: of no effect.
    """

    baselines = ("torchvision",)

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
        self._files: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
        self.folder = write_photographs(Path(self._files.name), images, width, height, classes=4)
        spec = {"name": "class_folders", "path": str(self.folder)}
        super().__init__(spec, images, batch, size, workers)

    def contender(self, name: str) -> Read:
        """Each returns the labels of what it has read."""
        if name == "ours":
            return self.ours("label")
        from torch.utils.data import DataLoader
        from torchvision.datasets import ImageFolder

        dataset = ImageFolder(str(self.folder), transform=self.transform)
        loader = DataLoader(dataset, self.batch, shuffle=True, num_workers=self.workers)
        return lambda: collect(labels for _, labels in loader)


@registry.register("workload", "shard_reading")
class ShardReading(Reading):
    """JPEG files in tar shards, beside the package webdataset by itself.

    The baseline streams the shards, each loader process its own, and shuffles in a buffer; ours
    reads samples by position, in a random order of all.

    Args:
        images: files; they are made on the spot.
        shards: that they are spread over.
        width, height: of the files.
        size: side of the crops.
        batch: images per batch; it has to divide ``images``.
        workers: loader processes.
        device, precision: of no effect.
    """

    baselines = ("webdataset",)

    def __init__(
        self,
        images: int = 256,
        shards: int = 4,
        width: int = 512,
        height: int = 384,
        size: int = 384,
        batch: int = 32,
        workers: int = 2,
        *,
        device: torch.device | None = None,
        precision: str = "fp32",
    ) -> None:
        self._files: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
        self.shards = write_shards(Path(self._files.name), images, shards, width, height)
        spec = {"name": "webdataset", "shards": [str(path) for path in self.shards]}
        super().__init__(spec, images, batch, size, workers)

    def contender(self, name: str) -> Read:
        """Each returns the texts of what it has read."""
        if name == "ours":
            return self.ours("text_input")
        import webdataset

        def read() -> list[Any]:
            dataset = (
                webdataset.WebDataset(
                    [str(path) for path in self.shards], shardshuffle=False, empty_check=False
                )
                .shuffle(100)
                .decode("pil")
                .to_tuple("jpg", "txt")
                .map_tuple(self.transform, str)
                .batched(self.batch, partial=True)
            )
            loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=self.workers)
            return collect(texts for _, texts in loader)

        return read
