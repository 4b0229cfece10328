"""The loggers of a run's records: metrics.jsonl, the console, TensorBoard.

A record is a flat dict. Of training: ``step``, ``loss``, ``loss_<name>``, ``lr``, ``grad_norm``,
``samples_per_second``, and ``quarantined`` or ``skipped`` once there are any. Of an evaluation:
``step``, ``evaluate`` (its name), its figures, ``seconds``, and ``counts``: how many images, texts
or questions the figures are of, and why the others are not among them (``Counts``).
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lavis_lite.data.counts import Counts
from lavis_lite.errors import ConfigError
from lavis_lite.runners.run_folder import RunFolder, write_text

log = logging.getLogger(__name__)
Record = dict[str, Any]


class Logger(Protocol):
    """Takes records."""

    def write(self, record: Record) -> None: ...

    def close(self) -> None: ...


class JsonlLog:
    """metrics.jsonl: a line per record, on disk as soon as it is written.

    While the disk is full, records are held back: whether that ends the run is for its
    checkpoints to say (``run.on_disk_full``).

    Args:
        path: the file; records of an earlier run that fail ``keep`` are removed from it.
        keep: which records stay. A line that a killed process left half-written never does.
    """

    def __init__(self, path: Path, keep: Callable[[Record], bool]) -> None:
        self.path = path
        kept = [record for record in read_records(path) if keep(record)]
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        # Unbuffered: a buffer would try again, and fail, wherever it is flushed next.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 -- open as long as the run
        self._unwritten = b""

    def write(self, record: Record) -> None:
        """Append a record; NaN and infinity, which JSON lacks, become null."""
        line = json.dumps({k: _finite(v) for k, v in record.items()}) + "\n"
        was_held_up = bool(self._unwritten)
        self._unwritten += line.encode("utf-8")
        if (error := self._flush()) and not was_held_up:
            log.error("%s: %s; records are held back until there is room", self.path, error)

    def close(self) -> None:
        """Write what is held back, and close the file."""
        if error := self._flush():
            log.error("%s: %s; its last records are lost", self.path, error)
        self._file.close()

    def _flush(self) -> OSError | None:
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            return error
        return None


def read_records(path: Path) -> list[Record]:
    """The records of a metrics.jsonl; an unreadable last line is left out, a missing file empty."""
    records = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s: a half-written line is dropped: %.60r", path, line)
    return records


class ConsoleLog:
    """A log line per record.

    Args:
        max_steps: the length of the run.
        guessing: losses with a known value for mere guessing, shown beside them.
    """

    def __init__(self, max_steps: int, guessing: Mapping[str, float]) -> None:
        self.max_steps = max_steps
        self.guessing = guessing

    def write(self, record: Record) -> None:
        """Log one line."""
        log.info("%s", self.line(record))

    def line(self, record: Record) -> str:
        """``step 20/3000  loss 5.12  itm 0.61 (guessing 0.637)  lr 3.0e-05  120 samples/s``."""
        values = dict(record)
        parts = [f"step {values.pop('step')}/{self.max_steps}"]
        if "evaluate" in values:
            seconds = values.pop("seconds", 0.0)
            parts.append(f"{values.pop('evaluate')}:")
            counts = values.pop("counts", {})
            parts += [f"{name} {_short(value)}" for name, value in values.items()]
            if counts:
                spelled = (Counts(**found).spell(unit) for unit, found in counts.items())
                parts.append(f"of {', '.join(spelled)}")
            return "  ".join([*parts, f"({seconds:.0f} s)"])
        rate, speed = values.pop("lr"), values.pop("samples_per_second")
        for name, value in values.items():
            shown = f"{name.removeprefix('loss_')} {_short(value)}"
            if name in self.guessing:
                shown += f" (guessing {self.guessing[name]:.3f})"
            parts.append(shown)
        return "  ".join([*parts, f"lr {rate:.1e}", f"{speed:.3g} samples/s"])

    def close(self) -> None:
        """Nothing to do."""


class TensorBoardLog:
    """Scalars for TensorBoard in ``<output_dir>/tensorboard``.

    Args:
        folder: where the event files go.
        step: the step that the run continues from; later events of an earlier run are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, record: Record) -> None:
        """Write every number of a record under ``train/`` or the evaluation's name."""
        group = record.get("evaluate", "train")
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(f"{group}/{name}", value, record["step"])

    def close(self) -> None:
        """Write what is still held back."""
        self._writer.close()


def check_loggers(names: Sequence[str]) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        ConfigError: naming the extra that brings it.
    """
    if "tensorboard" in names and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "run.loggers: 'tensorboard' is not installed; pip install 'lavis_lite[log]', "
            "or leave it out of run.loggers"
        )


def open_loggers(
    names: Sequence[str],
    folder: RunFolder,
    *,
    step: int,
    max_steps: int,
    guessing: Mapping[str, float],
    keep: Callable[[Record], bool],
) -> list[Logger]:
    """The loggers of a run that continues from ``step``; metrics.jsonl is always among them."""
    loggers: list[Logger] = [JsonlLog(folder.metrics, keep)]
    if "console" in names:
        loggers.append(ConsoleLog(max_steps, guessing))
    if "tensorboard" in names:
        loggers.append(TensorBoardLog(folder.path / "tensorboard", step))
    return loggers


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
