"""The base of pipelines: pictures in any form and number, results in the same form, lazily."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lavis_lite.errors import ConfigError, DataError, NotFinite, suggest
from lavis_lite.io.web_images import SECONDS
from lavis_lite.models.images import as_images
from lavis_lite.models.pipelines.reading import as_pixels, read_ahead
from lavis_lite.models.pipelines.session import Session
from lavis_lite.modules.samples import kind_of, needed

BATCH_SIZE = 16
SHOWN_AFTER = 2.0  # seconds, before a bar is drawn


class Batch(NamedTuple):
    """Pictures that could be read: places among the inputs, inputs, and pixels (B, 3, H, W)."""

    numbers: list[int]
    inputs: list[object]
    pixels: Tensor


Ask = Callable[[Batch], list[object]]  # a result for each picture; None where there are no numbers


class Pipeline:
    """A model with its processors that does one task on pictures.

    It takes a path, a URL, a PIL image, an array of bytes or prepared pixels (3, H, W); a mapping
    with an ``image``; a list or an array (B, ...) of these; or any other iterable of them.

    Args:
        session: with a model that can do the task.
        batch_size: pictures that the model looks at together, at most.

    Attributes:
        task: its name.
        needs: what a model must be able to do, a key of ``session.NEEDED``.
        gives: what the model gives, for the message where it gives no numbers.
    """

    task: ClassVar[str]
    needs: ClassVar[str]
    gives: ClassVar[str]

    def __init__(self, session: Session, batch_size: int = BATCH_SIZE) -> None:
        self.session = session
        self.batch_size = _positive(batch_size, "batch_size")

    @property
    def model(self) -> object:
        """The model, in evaluation mode."""
        return self.session.model

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.session.device

    def __call__(
        self,
        inputs: object = None,
        *,
        batch_size: int | None = None,
        timeout: float | None = None,
        num_workers: int | None = None,
        on_error: Literal["raise", "return"] = "raise",
        **options: object,
    ) -> object:
        """Do the task.

        Args:
            inputs: one picture, or several; see the class.
            batch_size: of this call.
            timeout: seconds for fetching a picture.
            num_workers: taken as code for transformers gives it; pictures are always read ahead.
            on_error: ``raise``, or ``return``, which puts ``{"error": reason}`` in the place of the
                result of a picture that cannot be read, or for which the model gives no numbers.
            options: of the task.

        Returns:
            The result of one picture; a list of results for a list or array; for any other
            iterable an iterator, which takes pictures as its results are asked for, so that memory
            does not grow with their number.

        Raises:
            ConfigError: an option that the task does not take, or no picture.
            DataError: a picture that cannot be read.
            NotFinite: the model gives NaN or infinity.
        """
        if "images" in options and inputs is None:  # its name in transformers before 4.40
            inputs = options.pop("images")
        if on_error not in ("raise", "return"):
            near = suggest(on_error, ("raise", "return"))
            raise ConfigError(f"on_error: {on_error!r}.{near} It is 'raise' or 'return'")
        ask = self.prepare(**self._checked(options))
        size = self.batch_size if batch_size is None else _positive(batch_size, "batch_size")
        seconds = SECONDS if timeout is None else float(timeout)
        items, is_one = pictures_of(inputs, self.task)
        results = self._results(items, ask, size, seconds, on_error == "return", is_one)
        if is_one:
            (result,) = results
            return result
        return list(results) if isinstance(items, list) else results

    def prepare(self, *args: Any, **options: Any) -> Ask:
        """Check the options of the task, and return what asks the model about a batch."""
        raise NotImplementedError

    def picture_of(self, item: object, name: str) -> object:
        """The picture in one of the inputs."""
        return needed(item, "image") if isinstance(item, Mapping) else item

    def _checked(self, options: dict[str, object]) -> dict[str, object]:
        """Options by the names that ``prepare`` has.

        Raises:
            ConfigError: another name, or one that is missing.
        """
        taken = inspect.signature(self.prepare).parameters
        listed = ", ".join(taken)
        for name in options:
            if name not in taken:
                near = suggest(name, taken)
                raise ConfigError(f"{self.task}: no argument {name!r}.{near} It takes {listed}")
        for name, parameter in taken.items():
            if parameter.default is parameter.empty and name not in options:
                raise ConfigError(f"{self.task}: give {name}; it takes {listed}")
        return options

    def _results(
        self,
        items: Iterable[object],
        ask: Ask,
        size: int,
        seconds: float,
        keeps_errors: bool,
        is_one: bool,
    ) -> Iterator[object]:
        def read(numbered: tuple[int, object]) -> Tensor | Exception:
            name = "image" if is_one else f"image {numbered[0]}"
            try:
                picture = self.picture_of(numbered[1], name)
                return as_pixels(picture, self.session.model, name, seconds)
            except (ConfigError, DataError) as error:
                return error

        total = len(items) if isinstance(items, Sized) else None
        bar = tqdm(
            total=total,
            unit="image",
            file=sys.stderr,
            disable=None,  # where this is no terminal
            delay=SHOWN_AFTER,
            leave=False,
        )
        with bar:
            for batch in read_ahead(enumerate(items), read, size):
                for result in self._asked(batch, ask):
                    if isinstance(result, Exception) and not keeps_errors:
                        raise result
                    yield {"error": str(result)} if isinstance(result, Exception) else result
                bar.update(len(batch))

    def _asked(
        self, batch: list[tuple[tuple[int, object], Tensor | Exception]], ask: Ask
    ) -> list[object]:
        """A result for each item of a batch: what the model says, or why there is none."""
        good = [(numbered, read) for numbered, read in batch if isinstance(read, Tensor)]
        said: list[object] = []
        if good:
            pixels = as_images([read for _, read in good], self.session.model, "images")
            numbers, inputs = zip(*(numbered for numbered, _ in good), strict=True)
            with torch.no_grad():
                said = ask(Batch(list(numbers), list(inputs), pixels))
        answers = iter(said)
        results: list[object] = []
        for (number, _), read in batch:
            result = next(answers) if isinstance(read, Tensor) else read
            results.append(
                NotFinite(f"{self.gives} of image {number}") if result is None else result
            )
        return results


def pictures_of(inputs: object, task: str) -> tuple[Iterable[object], bool]:
    """Return inputs as an iterable, a list where they are one, and whether they are one picture.

    Raises:
        ConfigError: no picture and nothing to iterate over.
    """
    if isinstance(inputs, str | bytes | os.PathLike | Image.Image | Mapping):
        return [inputs], True
    if isinstance(inputs, numpy.ndarray | Tensor):
        return (list(inputs), False) if inputs.ndim > 3 else ([inputs], True)
    if isinstance(inputs, list | tuple):
        return list(inputs), False
    if isinstance(inputs, Iterable):
        return inputs, False
    if hasattr(inputs, "__getitem__") and isinstance(inputs, Sized):  # a dataset by numbers
        rows = cast(Sequence[object], inputs)
        return (rows[number] for number in range(len(rows))), False
    raise ConfigError(
        f"{task}: {'no inputs' if inputs is None else kind_of(inputs)}; a path, a URL, a PIL "
        "image, an array of bytes, or an iterable of these is expected"
    )


def _positive(number: object, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigError(f"{name}: {number!r}; a whole number of at least 1 is expected")
    return number
