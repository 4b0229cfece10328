"""Batches for training and evaluation: exact order, exact resume, bad samples quarantined."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader

from lavis_lite.data.mixture import Draw, Mixture
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.data.reader import Processors, Reader, Stored
from lavis_lite.errors import DataError

_SECONDS_TO_LIVE = 20


class TrainData:
    """An endless stream of training batches.

    The order of samples is a function of (seed, position) alone: it doesn't depend on workers,
    and batch k of rank r holds positions k * G + r * batch_size ... of it, G being the joined
    batch, so that processes together read what one would. Augmentation depends on seed, turn,
    dataset and row. An unreadable sample is replaced by a function of the same, and quarantined.

    Args:
        datasets: map-style datasets, see `Rows`.
        weights: a sampling weight for each, or None for all (by size).
        processors: of the training.
        batch_size: per process.
        num_workers: processes that read ahead; 0 reads in this one.
        seed: of order and augmentation.
        quarantine: where unreadable samples are noted.
        rank, world_size: of this process.
        pin_memory: batches in page-locked memory, for copying to an accelerator.
        stored: what is read in place of images; None reads images.
        texts_per_image: texts of a sample; where there are several, `text_inputs` has all of them.

    Raises:
        ConfigError: on weights that cannot be followed.
    """

    def __init__(
        self,
        datasets: Sequence[Any],
        weights: Sequence[float | None],
        processors: Processors,
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
        quarantine: Quarantine,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        stored: Stored | None = None,
        texts_per_image: int = 1,
    ):
        self.datasets = list(datasets)
        self.batch_size = batch_size
        self.quarantine = quarantine
        self._mixture = Mixture([len(dataset) for dataset in datasets], weights, seed)
        self._first, self._stride = rank * batch_size, world_size * batch_size
        self.stored: Any = stored
        self._reader = Reader(
            self.datasets,
            processors,
            seed=seed,
            training=True,
            stored=stored,
            texts_per_image=texts_per_image,
        )
        self._workers: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin_memory}

    @property
    def samples_per_epoch(self) -> int:
        """The samples of an epoch over all processes; an epoch may end within a batch."""
        return self._mixture.samples_per_epoch

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        """Batches start ... stop - 1 of this rank, endless without a stop.

        Raises:
            DataError: when too many samples are unreadable, or a worker dies.
        """
        numbers: Iterable[int] = count(start) if stop is None else range(start, stop)
        draws = (self._draws(number) for number in numbers)
        return _batches(self._reader, draws, self.quarantine, **self._workers)

    def _draws(self, batch: int) -> list[Draw]:
        start = self._first + batch * self._stride
        return self._mixture.draws(start, start + self.batch_size)


class EvalData:
    """Rows of one dataset in batches, each exactly once, in order.

    Args:
        dataset: a map-style dataset, see `Rows`.
        processors: of the evaluation.
        batch_size: rows per batch.
        num_workers: processes that read ahead; 0 reads in this one.
        quarantine: where unreadable rows are noted; by default they are counted and logged.
        pin_memory: batches in page-locked memory, for copying to an accelerator.
        stored: what is read in place of images; None reads images.

    Attributes:
        bad_rows: rows that this process could not read -> why.
    """

    def __init__(
        self,
        dataset: Any,
        processors: Processors,
        *,
        batch_size: int,
        num_workers: int = 0,
        quarantine: Quarantine | None = None,
        pin_memory: bool = False,
        stored: Stored | None = None,
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.quarantine = quarantine or Quarantine()
        self.bad_rows: dict[int, str] = {}
        self.processors = processors
        self._reader = Reader([dataset], processors, seed=0, training=False, stored=stored)
        self._workers: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin_memory}

    def batches(self, indices: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
        """Batches of these rows, all by default; `index` says which rows are in a batch.

        An unreadable row is quarantined and left out.

        Raises:
            DataError: when too many rows are unreadable, or a worker dies.
        """
        chosen = range(len(self.dataset)) if indices is None else indices
        draws = (
            [Draw(0, 0, int(index)) for index in chosen[start : start + self.batch_size]]
            for start in range(0, len(chosen), self.batch_size)
        )
        return _batches(self._reader, draws, self.quarantine, self.bad_rows, **self._workers)

    def set_aside(self, index: int, key: str | None, reason: str) -> None:
        """Note a row that was read and could not be judged, such as for want of a number."""
        self.bad_rows[index] = reason
        name = getattr(self.dataset, "name", type(self.dataset).__name__)
        record = {"dataset": name, "index": index, "key": key, "reason": reason}
        self.quarantine.add(record)


def _batches(
    reader: Reader,
    draws: Iterable[list[Draw]],
    quarantine: Quarantine,
    bad_rows: dict[int, str] | None = None,
    *,
    num_workers: int,
    pin_memory: bool,
) -> Iterator[dict[str, Any]]:
    with closing(read_ahead(reader, draws, num_workers, pin_memory)) as reads:
        for read in reads:
            for record in read.bad:
                quarantine.add(record)
                if bad_rows is not None:
                    bad_rows[record["index"]] = record["reason"]
            if read.error:
                raise DataError(read.error)
            quarantine.seen(read.num_read)
            if read.batch:
                yield read.batch


def read_ahead(
    reader: Any, draws: Iterable[list[Any]], num_workers: int, pin_memory: bool = False
) -> Generator[Any, None, None]:
    """Yield ``reader.__getitems__`` of each list in order, read by workers ahead of the consumer.

    Args:
        reader: lives in the workers.
        draws: lists of what to read; taken in this process, up to two for each worker ahead.
        num_workers: processes that read; 0 reads in this one.
        pin_memory: results in page-locked memory.

    Raises:
        DataError: a worker dies.
    """
    if not num_workers and not pin_memory:
        yield from (reader.__getitems__(batch) for batch in draws)
        return
    loader: DataLoader[Any] = DataLoader(
        reader,
        batch_sampler=draws,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=_prepare_worker,
        multiprocessing_context="fork" if num_workers else None,
        pin_memory=pin_memory,
        # Its own, or starting workers would advance the global generator that dropout uses.
        generator=torch.Generator(),
    )
    handler = signal.getsignal(signal.SIGCHLD)
    reads = iter(loader)
    if threading.current_thread() is threading.main_thread():
        # torch raises a worker's death wherever the main program is, in the middle of a save if it
        # comes to that. Without its handler the next batch says so, at most five seconds later.
        signal.signal(signal.SIGCHLD, handler)
    try:
        yield from reads
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a data worker died ({error}); when memory ran out, lower data.num_workers"
        ) from None
    finally:
        # Not left to the garbage collector: an error's traceback would keep the workers.
        getattr(reads, "_shutdown_workers", bool)()


def _as_it_is(read: Any) -> Any:
    return read


def _prepare_worker(number: int) -> None:
    """Use one thread and outlive stop signals: a run that is told to stop finishes its step.

    Schedulers and Ctrl-C signal every process of a job, and a dead worker is an error in the main
    process. The alarm is for a worker that nobody ends otherwise.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_SECONDS_TO_LIVE))
