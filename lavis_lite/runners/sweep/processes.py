"""Execution of runs that depend on each other, in this process or in several parallel ones."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from lavis_lite import runners
from lavis_lite.io.redaction import log_to_stderr
from lavis_lite.registry.plugins import load_plugin
from lavis_lite.runners.sweep.plan import Job

log = logging.getLogger(__name__)
Failures = list[tuple[Job, str]]


class Worker(NamedTuple):
    """A process that takes runs from a pipe and answers with what went wrong, or None."""

    process: BaseProcess
    pipe: Connection


class Queue:
    """The runs that are left, in an order in which each comes after its inputs."""

    def __init__(self, jobs: Mapping[str, Job], workers: int = 1) -> None:
        self.left = dict(jobs)
        self.unfinished = set(jobs)
        self.failures: Failures = []
        self.total = len(jobs)
        self.begun: dict[str, float] = {}
        self.seconds: list[float] = []  # of each run that is done
        self.workers = workers

    def begins(self, job: Job) -> str:
        """A line on the run that begins now: its number, for which arms and seeds, time left."""
        self.begun[job.ident] = time.monotonic()
        number = len(self.begun)
        line = f"[{number}/{self.total}] {job.folder.name} begins" + (
            f": {job.label}" if job.label else ""
        )
        if not self.seconds:
            return line
        each = sum(self.seconds) / len(self.seconds)
        left = each * len(self.unfinished) / self.workers
        return f"{line} (about {_spelled(left)} left, at {_spelled(each)} a run)"

    def take(self) -> Job | None:
        """The next run whose inputs are there; None while there is none."""
        for ident, job in self.left.items():
            if not self.unfinished.intersection(job.inputs):
                return self.left.pop(ident)
        return None

    def finish(self, job: Job, error: str | None) -> None:
        """Note a run's end; what builds on one that failed is given up."""
        if error is None:
            self.unfinished.remove(job.ident)
            if job.ident in self.begun:
                self.seconds.append(time.monotonic() - self.begun[job.ident])
            done = self.total - len(self.unfinished)
            log.info("[%d/%d] %s", done, self.total, job.folder.name)
            return
        log.error("%s failed: %s", job.folder, error)
        self.failures.append((job, error))
        given_up = {job.ident}
        for ident, other in list(self.left.items()):
            if given_up.intersection(other.inputs):
                given_up.add(ident)
                self.failures.append((self.left.pop(ident), f"needs {job.folder.name}"))


def run_jobs(
    jobs: Mapping[str, Job], workers: int, plugins: list[str], finished: Callable[[Job], object]
) -> Failures:
    """Run all; one that fails is noted, and what does not build on it goes on.

    Args:
        jobs: by their idents; inputs that are not among them are there already.
        workers: processes; 1: this one.
        plugins: what a new process has to import first.
        finished: told of each that is complete.

    Returns:
        Each that did not finish, with the reason.
    """
    queue = Queue(jobs, max(1, min(workers, len(jobs))))
    if workers == 1 or len(jobs) < 2:
        while (job := queue.take()) is not None:
            log.info("%s", queue.begins(job))
            error = _run(job.config)
            queue.finish(job, error)
            if error is None:
                finished(job)
        return queue.failures
    _run_beside(queue, min(workers, len(jobs)), plugins, finished)
    return queue.failures


def _spelled(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _run(config: Any) -> str | None:
    """Run a config; what went wrong, if anything did."""
    try:
        runners.run(config)
    except Exception as error:  # whatever a run dies of, the others may go on
        log.error("a run failed", exc_info=True)
        return f"{type(error).__name__}: {error}"
    return None


def _run_beside(
    queue: Queue, workers: int, plugins: list[str], finished: Callable[[Job], object]
) -> None:
    idle = [_start(plugins) for _ in range(workers)]
    everyone = list(idle)
    busy: dict[Connection, tuple[Worker, Job]] = {}
    try:
        while True:
            while idle and (job := queue.take()) is not None:
                worker = idle.pop()
                log.info("%s", queue.begins(job))
                worker.pipe.send(job.config)
                busy[worker.pipe] = worker, job
            if not busy:
                return
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker, job = busy.pop(pipe)
                try:
                    error = pipe.recv()
                except EOFError:  # killed, perhaps for want of memory
                    worker.process.join()
                    error = f"its process ended with code {worker.process.exitcode}"
                    worker = _start(plugins)
                    everyone.append(worker)
                idle.append(worker)
                queue.finish(job, error)
                if error is None:
                    finished(job)
    finally:
        for worker in everyone:  # a training run that is under way saves and stops
            worker.process.terminate()
        for worker in everyone:
            worker.process.join()


def _start(plugins: list[str]) -> Worker:
    # Not forked: torch's threads would not come along.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, plugins))
    process.start()
    theirs.close()
    return Worker(process, ours)


def _work(pipe: Connection, plugins: list[str]) -> None:
    import torch

    torch.set_num_threads(1)  # threads of several processes on the same cores are far slower
    log_to_stderr(logging.WARNING, f"process {os.getpid()}: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for plugin in plugins:
        load_plugin(plugin)
    while True:
        pipe.send(_run(pipe.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
