"""An output folder: its files, who may write there, and what the run in it was started with."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lavis_lite import distributed
from lavis_lite.config import to_yaml
from lavis_lite.errors import ConfigError
from lavis_lite.io.json_files import read_json as read_json
from lavis_lite.io.json_files import write_json as write_json
from lavis_lite.io.json_files import write_text as write_text
from lavis_lite.io.paths import here
from lavis_lite.io.redaction import redacted_words
from lavis_lite.report.environment import environment
from lavis_lite.runners.settings import Settings, settings

try:
    import fcntl
except ImportError:  # Windows has no such locks: there, two runs in one folder are not noticed
    fcntl = None  # type: ignore[assignment]


class RunFolder:
    """The files of one run.

    ``config.yaml`` can be run again as it is; ``run.json`` holds the command, environment and
    settings of the last start; ``complete.json`` is the summary and exists only when the run has
    finished. None of them holds a secret: see `lavis_lite.io.redaction`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = output_folder(path)
        self.config = self.path / "config.yaml"
        self.start = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.quarantine = self.path / "quarantine.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.bad_batch = self.path / "bad_batch.json"
        self.complete = self.path / "complete.json"

    def predictions(self, name: str) -> Path:
        """Return the path of an evaluator's predictions."""
        return self.path / "predictions" / f"{name}.jsonl"

    def submission(self, name: str) -> Path:
        """Return the path of an evaluator's predictions in an evaluation server's format."""
        return self.path / "predictions" / f"{name}_submission.json"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out of the folder; the lock goes when the process does, however it ends.

        Raises:
            ConfigError: another process is running here, or nothing can be written here.
        """
        if not distributed.is_main():
            yield
            return
        with naming_the_folder(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
        with lock:
            # lockf, not flock: a forked loader process must not keep a killed run's lock alive.
            try:
                if fcntl is not None:
                    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                raise ConfigError(
                    f"run.output_dir: process {lock.read().strip()} is running in {self.path}; "
                    "wait for it, or use another folder"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def claim(
        self, config: Any, device: torch.device, rows: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Write down what is being run here: ``config.yaml`` and ``run.json``.

        Args:
            config: of the run.
            device: that it runs on.
            rows: which rows it is trained on, see ``data_identity``.
        """
        distributed.barrier()  # every process has read what stood there before
        if distributed.is_main():
            write_text(self.config, to_yaml(config))
            record = {
                "runner": config.runner.name,
                "command": shlex.join([Path(sys.executable).name, *redacted_words(sys.argv)]),
                "started": time.strftime("%Y-%m-%d %H:%M:%S"),
                "environment": environment(),
                "device": str(device),
                "processes": distributed.world_size(),
                "settings": settings(config, distributed.world_size()),
            }
            if rows:
                record["rows"] = list(rows)
            write_json(self.start, record)
        distributed.barrier()

    def owner(self) -> str | None:
        """The name of the runner whose run is in this folder; None in a new one."""
        return read_json(self.start).get("runner")

    def refuse_other_kind(self, runner: str) -> None:
        """Raises ConfigError when the folder holds the run of another runner."""
        if self.owner() not in (None, runner):
            raise ConfigError(
                f"run.output_dir: {self.path} holds a {self.owner()!r} run, this is a {runner!r} "
                "run; choose another folder"
            )

    def last_settings(self) -> Settings | None:
        """The settings that the run in this folder was last started with; None in a new one."""
        return read_json(self.start).get("settings")

    def last_rows(self) -> list[dict[str, Any]]:
        """Read which rows the run in this folder was last trained on; empty if unknown."""
        return read_json(self.start).get("rows", [])

    def summary(self) -> dict[str, Any] | None:
        """The result of the finished run; None while it has not finished."""
        return read_json(self.complete) if self.complete.is_file() else None

    def finish(self, summary: dict[str, Any]) -> None:
        """Mark the run as finished."""
        if distributed.is_main():
            write_json(self.complete, summary)
        distributed.barrier()

    def reopen(self) -> None:
        """Take the mark of a finished run away again."""
        distributed.barrier()
        if distributed.is_main():
            self.complete.unlink(missing_ok=True)
        distributed.barrier()


def output_folder(path: str | Path) -> Path:
    """The folder that ``run.output_dir`` means, ``~`` expanded.

    Raises:
        ConfigError: it is not on this machine.
    """
    try:
        return Path(here(path))
    except ConfigError as error:
        raise ConfigError(f"run.output_dir: {error}") from None


@contextlib.contextmanager
def naming_the_folder(path: Path) -> Iterator[None]:
    """Turn an error of making or first writing to an output folder into a ConfigError of its key.

    Raises:
        ConfigError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"run.output_dir: {path} cannot be written: {reason}") from None
