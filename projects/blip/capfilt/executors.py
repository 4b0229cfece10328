"""Executors that start workers. All run the same function; nothing coordinates the data.

Imports no torch: what a worker needs, its task imports.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeAlias

from lavis_lite import errors
from lavis_lite.errors import ConfigError
from lavis_lite.io.redaction import log_to_stderr

log = logging.getLogger(__name__)
_USER_ERRORS = ("ConfigError", "DataError", "CheckpointError", "DownloadError", "UnknownName")


class Place(NamedTuple):
    """The number of a worker, of how many, and its number on its machine (for its GPU)."""

    number: int = 0
    workers: int = 1
    local: int = 0


class Needs(NamedTuple):
    """The share of a machine that a worker takes: cores and GPUs."""

    num_cpus: int = 1
    num_gpus: int = 0


def needs_of(num_threads: int, device: str) -> Needs:
    """Return the share of a machine that a worker with a model takes."""
    return Needs(num_threads, int(device.startswith("cuda")))


# What a worker does; it can be pickled. It returns when the work of all workers is done.
Task: TypeAlias = Callable[[Place], object]


def serial(task: Task, workers: int, needs: Needs) -> None:
    """Work in this process; several such processes, started by any means, share the shards."""
    task(torchrun_place())


def torchrun(task: Task, workers: int, needs: Needs) -> None:
    """One worker per process that torchrun started. They meet in the output folder alone."""
    if "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            "runner.executor: torchrun, but this process was not started by it; start with "
            "torchrun --nproc-per-node N run.py ..., or choose process"
        )
    task(torchrun_place())


def torchrun_place() -> Place:
    """Return this worker's place as torchrun states it; without torchrun, the only worker."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    return Place(
        *(int(os.environ.get(name, place)) for name, place in zip(names, Place(), strict=True))
    )


def process(task: Task, workers: int, needs: Needs) -> None:
    """Start processes on this machine. If one dies, the others finish its shard."""
    if torchrun_place().workers > 1:
        raise ConfigError("runner.executor: process, under torchrun; choose torchrun or serial")
    context = multiprocessing.get_context("spawn")
    running: dict[Any, tuple[Any, Connection]] = {}
    for number in range(workers):
        ours, theirs = context.Pipe(duplex=False)
        arguments = (task, Place(number, workers, number), theirs)
        child = context.Process(target=_worker, args=arguments, name=f"capfilt-{number}")
        child.start()
        theirs.close()
        running[child.sentinel] = (child, ours)
    failures: list[str] = []
    try:
        while running:
            for sentinel in wait(list(running)):
                child, pipe = running.pop(sentinel)
                child.join()
                if child.exitcode:
                    _raise_user_error(pipe)
                    failures.append(f"{child.name} ended with code {child.exitcode}")
                    log.warning("%s; the others take over its shard", failures[-1])
    finally:
        for child, _ in running.values():
            child.terminate()
        for child, _ in running.values():
            child.join()
    if len(failures) == workers:
        raise RuntimeError(f"no worker is left: {'; '.join(failures)}")


def _raise_user_error(pipe: Connection) -> None:
    """Raise a worker's user error in this process: another worker would raise the same."""
    if pipe.poll():
        kind, message = pipe.recv()
        raise getattr(errors, kind)(message)


def _worker(task: Task, place: Place, pipe: Connection) -> None:
    log_to_stderr(logging.INFO, f"worker {place.number}: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        task(place)
    except Exception as error:
        if type(error).__name__ not in _USER_ERRORS:
            raise
        pipe.send((type(error).__name__, str(error)))
        raise SystemExit(2) from None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def ray(task: Task, workers: int, needs: Needs) -> None:
    """Start Ray tasks on all machines of a cluster that see the output folder and the source.

    Raises:
        ConfigError: ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray as cluster
    except ImportError:
        raise ConfigError(
            "runner.executor: ray is not installed: pip install 'lavis_lite[ray]', or choose "
            "process"
        ) from None
    started = not cluster.is_initialized()
    if started:
        cluster.init(include_dashboard=False, log_to_driver=False)
    try:
        # A task that dies with its machine starts again and finds what is done.
        remote = cluster.remote(**needs._asdict(), max_retries=3)(_call)
        cluster.get([remote.remote(task, Place(n, workers)) for n in range(workers)])
    finally:
        if started:
            cluster.shutdown()


def _call(task: Task, place: Place) -> object:
    return task(place)  # a cluster takes functions alone, and a task may be a partial one


EXECUTORS: dict[str, Callable[[Task, int, Needs], None]] = {
    "serial": serial,
    "process": process,
    "torchrun": torchrun,
    "ray": ray,
}
