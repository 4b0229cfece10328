"""Reading of one batch from its datasets: decoded, processed, with a record of bad samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy
import torch

from lavis_lite.data.collate import collate
from lavis_lite.data.files import images
from lavis_lite.data.mixture import Draw, probe
from lavis_lite.data.seeding import generator
from lavis_lite.data.stored_images import IMAGE_NAME
from lavis_lite.data.token_store import DamagedTokens
from lavis_lite.errors import DataError

_MAX_ATTEMPTS = 1000


@dataclass(frozen=True)
class Processors:
    """Functions that turn a decoded image into a tensor and a text into the text to tokenise."""

    image: Callable
    text: Callable


class Stored(Protocol):
    """Something kept of images that is read in their stead: see ``StoredImages``."""

    crops: int

    def row(self, dataset: int, index: int) -> dict[str, Any]:
        """A row with the places of its images in their stead."""
        ...

    def tokens(self, place: int, crop: int) -> torch.Tensor:
        """The tokens that a sample has in the place of an image."""
        ...


@dataclass
class Read:
    """A worker's result: a batch (None if none was readable) and records of bad samples."""

    batch: dict[str, Any] | None
    num_read: int = 0
    bad: Sequence[dict[str, Any]] = ()
    error: str | None = None

    def pin_memory(self) -> Read:
        """Pin the tensors; the DataLoader calls this because it looks into dicts only."""
        for name, value in (self.batch or {}).items():
            if isinstance(value, torch.Tensor):
                self.batch[name] = value.pin_memory()  # type: ignore[index]
        return self


class Reader:
    """Reads the samples of a batch; lives in the workers.

    Args:
        datasets: map-style datasets.
        processors: of images and texts.
        seed: of augmentation.
        training: augment, and replace what cannot be read.
        stored: reads the images instead; which of the stored crops a sample gets depends on seed,
            turn, dataset and row, as augmentation does.
    """

    def __init__(
        self,
        datasets: list[Any],
        processors: Processors,
        *,
        seed: int,
        training: bool,
        stored: Stored | None = None,
        texts_per_image: int = 1,
    ) -> None:
        self.datasets, self.processors = datasets, processors
        self.texts_per_image = texts_per_image
        self.seed, self.training, self.stored = seed, training, stored
        self._names = _distinct([getattr(dataset, "name", "dataset") for dataset in datasets])
        self._blank = processors.text("")

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)

    def __getitems__(self, draws: list[Draw]) -> Read:
        samples, bad = [], []
        for draw in draws:
            try:
                sample, records = self._read(draw)
            except DataError as error:  # raised in the main process, as itself
                return Read(None, error=str(error))
            bad += records
            samples += [sample] if sample else []
        num_read = len(samples) + len(bad)
        return Read(collate(samples) if samples else None, num_read, bad)

    def _read(self, draw: Draw) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """The sample of a draw, or in training what replaces it; and records of what was bad."""
        length = len(self.datasets[draw.dataset])
        attempts = min(length, _MAX_ATTEMPTS) if self.training else 1
        bad: list[dict[str, Any]] = []
        for attempt in range(attempts):
            index = probe(draw, attempt, length, self.seed) if attempt else draw.row
            try:
                return self._sample(draw, index), bad
            except DamagedTokens:  # no fault of the sample's
                raise
            except (DataError, OSError) as error:
                bad.append(self._record(draw, index, str(error)))
        if not self.training:
            return None, bad
        reasons = Counter(record["reason"] for record in bad).most_common(3)
        raise DataError(
            f"{self._names[draw.dataset]}: none of {attempts} rows tried could be read: "
            + "; ".join(f"{reason} ({number} times)" for reason, number in reasons)
        )

    def _sample(self, draw: Draw, index: int) -> dict[str, Any]:
        dataset = self.datasets[draw.dataset]
        # Of the row drawn, not of the one that replaces it: that one has its own turn.
        rng = generator("sample", self.seed, *draw)
        row = dataset[index] if self.stored is None else self.stored.row(draw.dataset, index)
        if self.training and hasattr(dataset, "augment"):
            row = dataset.augment(row, rng)
        seen = {name: value for name, value in row.items() if IMAGE_NAME.fullmatch(name)}
        decode = getattr(dataset, "decode", images.decode)
        if self.stored is None:
            seen = {
                name: [decode(one) for one in value] if isinstance(value, list) else decode(value)
                for name, value in seen.items()
            }
        try:
            if self.stored is None:
                pictures = {name: self._process(image, rng) for name, image in seen.items()}
            else:
                pictures = self._tokens(seen, draw)
            text = self.processors.text(row["text_input"], rng)
        except Exception as error:
            error.add_note(f"while processing {self._names[draw.dataset]}[{index}]")
            raise
        texts = [text, *self._other_texts(dataset, index, rng)]
        if self.training and any(not one.strip() or one == self._blank for one in texts):
            raise DataError("empty text")
        sample = {**row, **pictures, "text_input": text, "index": index}
        if self.texts_per_image > 1:
            sample["text_inputs"] = texts
        if len(self.datasets) > 1 and not isinstance(row["image_id"], str):
            # Number 7 of one dataset is not the image that has number 7 in another.
            sample["image_id"] = f"{draw.dataset}/{row['image_id']}"
        return sample

    def _tokens(self, places: dict[str, int], draw: Draw) -> dict[str, torch.Tensor]:
        """Tokens in the place of images, of a crop that the draw decides."""
        assert self.stored is not None
        # Not the sample's generator: whatever else is drawn is drawn as with one crop.
        rng = generator("crop", self.seed, *draw)
        crops = self.stored.crops
        return {
            name: self.stored.tokens(place, int(rng.integers(crops)) if crops > 1 else 0)
            for name, place in places.items()
        }

    def _other_texts(self, dataset: Any, index: int, rng: numpy.random.Generator) -> list[str]:
        """Texts of a sample beside its first one, each drawn and processed by itself."""
        if self.texts_per_image == 1:
            return []
        row = getattr(dataset, "annotation", dataset.__getitem__)(index)
        draw = getattr(dataset, "augment", lambda row, rng: row)
        drawn = [draw(row, rng)["text_input"] for _ in range(self.texts_per_image - 1)]
        return [self.processors.text(text, rng) for text in drawn]

    def _process(self, image: Any, rng: numpy.random.Generator) -> Any:
        """A decoded image, or the frames of a video: (3, S, S), or (F, 3, S, S)."""
        if isinstance(image, list):
            return torch.stack([self.processors.image(one, rng) for one in image])
        return self.processors.image(image, rng)

    def _record(self, draw: Draw, index: int, reason: str) -> dict[str, Any]:
        try:
            key = self.datasets[draw.dataset].annotation(index)["key"]
        except (AttributeError, LookupError, DataError, OSError):
            key = str(index)
        record = {"dataset": self._names[draw.dataset], "index": index, "key": key}
        return {**record, "reason": reason} | ({"epoch": draw.turn} if self.training else {})


def _distinct(names: list[str]) -> list[str]:
    seen = Counter(names)
    return [f"{name}#{place}" if seen[name] > 1 else name for place, name in enumerate(names)]
