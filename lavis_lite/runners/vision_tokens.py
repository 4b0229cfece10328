"""Tokens of a frozen vision encoder: computed once, kept on disk, read in place of images."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from lavis_lite import distributed, registry
from lavis_lite.config.schema import VisionTokensConfig
from lavis_lite.data.files import images
from lavis_lite.data.loader import read_ahead
from lavis_lite.data.seeding import generator
from lavis_lite.data.stored_images import Missing, StoredImages
from lavis_lite.data.token_store import TokenStore, in_units
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.io.paths import here
from lavis_lite.models.frozen_vision import describe, encode, share_with_momentum, vision_encoder
from lavis_lite.modules.vision_tokens import VisionTokens
from lavis_lite.runners.precision import Precision

log = logging.getLogger(__name__)
_SECONDS_BETWEEN_LOGS = 30.0
_SECONDS_BETWEEN_LOOKS = 0.2


class Part(NamedTuple):
    """Images that are prepared alike: the folder of their store, the processor, their crops."""

    folder: str
    processor: Mapping[str, Any]
    runtime: Mapping[str, Any]
    crops: int
    images: StoredImages


class KeptTokens:
    """The tokens of a model's frozen vision encoder.

    Args:
        options: the folder and what is kept in it.
        model: with a ``visual_encoder``.
        precision: of the encoder's forward passes, and the device.
        batch_size: crops that are encoded at a time.
        num_workers: processes that read images.

    Raises:
        ConfigError: a model without a vision encoder.
    """

    def __init__(
        self,
        options: VisionTokensConfig,
        model: nn.Module,
        precision: Precision,
        *,
        batch_size: int,
        num_workers: int,
    ) -> None:
        self.options, self.precision = options, precision
        self.batch_size, self.num_workers = batch_size, num_workers
        self._model = model
        self.encoder = vision_encoder(model)
        self._parts: list[Part] = []

    def images(
        self,
        folder: str,
        datasets: Sequence[Any],
        processor: Mapping[str, Any],
        runtime: Mapping[str, Any],
        crops: int = 1,
    ) -> StoredImages:
        """Announce images; they can be read once ``fill`` has run.

        Args:
            folder: of their store, in that of the config.
            datasets: that have them.
            processor: the component that prepares them.
            runtime: further arguments of it, such as the model's image size.
            crops: times that each is prepared, every time with its own random numbers.
        """
        stored = StoredImages(datasets, VisionTokens.of)
        self._parts.append(Part(folder, processor, runtime, crops, stored))
        return stored

    def fill(self) -> None:
        """Compute the tokens that are missing; the model has the weights that it keeps.

        Processes that share the folder divide the work, and each returns when all is there.

        Raises:
            ConfigError: the folder has tokens of another kind, or too little room.
            DamagedTokens: what is there was altered.
        """
        share_with_momentum(self._model)
        about = {**describe(self.encoder), "precision": _name_of(self.precision)}
        for part in self._parts:
            self._fill(part, about)

    def _fill(self, part: Part, about: Mapping[str, Any]) -> None:
        process = registry.build("processor", part.processor, **part.runtime)
        if part.crops > 1 and not draws(process):
            raise ConfigError(
                f"data.vision_tokens.crops: {part.crops}, but {part.processor['name']} makes the "
                "same of a picture every time; set crops: 1"
            )
        blank = process(Image.new("RGB", (8, 8)), generator("blank"))[None]
        prepared = {**part.runtime, **part.processor}
        store = TokenStore(
            Path(here(self.options.folder)) / part.folder,
            {**about, "processor": prepared, "seed": self.options.seed},
            shape=self.encode(blank).shape[1:],
            crops=part.crops,
            dtype=self.options.dtype,
        )
        missing = part.images.find(store)
        _tell_cost(store, len(part.images.places), len(missing))
        store.demand_room(len(missing))
        reader = CropReader(part.images.datasets, process, part.crops, self.options.seed)
        try:
            self._compute(store, part.images, reader, missing)
        finally:
            store.release_all()
        part.images.load()

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) of the frozen encoder, on its device."""
        pixels = pixels.to(self.precision.device)
        with self.precision.autocast():
            return encode(self.encoder, pixels)

    def _compute(
        self, store: TokenStore, stored: StoredImages, reader: CropReader, missing: list[Missing]
    ) -> None:
        size = max(1, self.batch_size // store.crops)
        first = len(missing) * distributed.rank() // distributed.world_size()
        pending = {one.place: one for one in missing[first:] + missing[:first]}
        progress = Progress(len(pending))
        while pending:
            claims = _claims(store, list(pending.values()), size)
            before = len(pending)
            for read in read_ahead(reader, claims, self.num_workers):
                good = [(one, crops) for one, crops in read if isinstance(crops, Tensor)]
                stored.unreadable |= {o.place: why for o, why in read if isinstance(why, str)}
                if good:
                    pixels = torch.cat([crops for _, crops in good])
                    tokens = self.encode(pixels).unflatten(0, (len(good), store.crops))
                    store.put([one.place for one, _ in good], tokens)
                for one, _ in read:
                    store.release(one.place)
                    del pending[one.place]
                progress.tell(len(pending))
            for place in store.filled(pending):  # by other processes
                del pending[place]
            if pending and len(pending) == before:
                time.sleep(_SECONDS_BETWEEN_LOOKS)


class CropReader:
    """Reads images and prepares their crops; lives in the loader's processes.

    Args:
        datasets: with the images.
        process: the image processor.
        crops: of each image.
        seed: crop k of an image depends on it, on k and on the image alone.
    """

    def __init__(self, datasets: Sequence[Any], process: Any, crops: int, seed: int) -> None:
        self.datasets, self.process, self.crops, self.seed = datasets, process, crops, seed

    def __getitems__(self, wanted: list[Missing]) -> list[tuple[Missing, Tensor | str]]:
        return [(one, self._crops(one)) for one in wanted]

    def _crops(self, one: Missing) -> Tensor | str:
        """(K, 3, H, W), or why the image cannot be read."""
        dataset = self.datasets[one.dataset]
        try:
            image = getattr(dataset, "decode", images.decode)(dataset[one.row][one.name])
        except (DataError, OSError) as error:
            return str(error)
        drawn = (generator("crop", self.seed, one.image.hex(), k) for k in range(self.crops))
        return torch.stack([self.process(image, rng) for rng in drawn])


def draws(process: Any) -> bool:
    """Tell whether an image processor makes different things of one picture."""
    noise = generator("noise").integers(0, 256, (32, 32, 3)).astype("uint8")
    first, *others = (process(Image.fromarray(noise), generator("draw", n)) for n in range(16))
    return any(not torch.equal(first, other) for other in others)


def _claims(store: TokenStore, wanted: list[Missing], size: int) -> Iterator[list[Missing]]:
    """Batches of places that this process has locked and nobody has filled."""
    batch: list[Missing] = []
    for number, one in enumerate(wanted, 1):
        if store.claim(one.place):
            batch.append(one)
        if len(batch) == size or number == len(wanted):
            filled = store.filled(one.place for one in batch)
            for place in filled:
                store.release(place)
            batch = [one for one in batch if one.place not in filled]
            if len(batch) == size or (batch and number == len(wanted)):
                yield batch
                batch = []


class Progress:
    """Tells from time to time how many images are done, and how fast.

    Args:
        total: images to do.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._begin = self._last = time.perf_counter()

    def tell(self, left: int) -> None:
        """Log, unless that was done a moment ago."""
        now = time.perf_counter()
        if now - self._last > _SECONDS_BETWEEN_LOGS:
            self._last = now
            done = self._total - left
            speed = done / (now - self._begin)
            log.info("vision tokens: %d of %d images, %.1f images/s", done, self._total, speed)


def _name_of(precision: Precision) -> str:
    return "fp32" if precision.dtype is None else str(precision.dtype).removeprefix("torch.")


def _tell_cost(store: TokenStore, num_images: int, num_missing: int) -> None:
    if not distributed.is_main():
        return
    tokens, width = store.shape
    log.info(
        "vision tokens in %s: %s images x %d crop(s) x %s tokens x %s numbers of %s = %s; "
        "%s images (%s) are to be computed",
        store.folder,
        f"{num_images:,}",
        store.crops,
        f"{tokens:,}",
        f"{width:,}",
        store.dtype,
        in_units(store.cost(num_images)),
        f"{num_missing:,}",
        in_units(store.cost(num_missing)),
    )
