"""A run's checkpoints: written whole or not at all, verified before use, the best and last kept.

See `directory.py` for the files. Only rank 0 writes and decides; every rank calls each method.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

import lavis_lite
from lavis_lite import distributed
from lavis_lite.checkpoint import directory
from lavis_lite.checkpoint.directory import NothingToResume, read_manifest
from lavis_lite.checkpoint.load_state import LoadReport, load_state
from lavis_lite.checkpoint.state import plain, rng_state, set_rng_state
from lavis_lite.checkpoint.weights import read_weights, save_weights, write_safetensors
from lavis_lite.errors import CheckpointError, ConfigError
from lavis_lite.io.files import sha256_of, sync

__all__ = [
    "Checkpointer",
    "LoadReport",
    "NothingToResume",
    "load_state",
    "plain",
    "read_manifest",
    "read_weights",
    "rng_state",
    "save_weights",
    "set_rng_state",
]

log = logging.getLogger(__name__)

_TEMPORARY, _TRASH = ".tmp-", ".trash-"
T = TypeVar("T")


class Checkpointer:
    """The checkpoints in one directory.

    Args:
        directory: usually ``<output_dir>/checkpoints``; made by the first save.
        keep_last: how many of the newest to keep.
        keep_best: a metric's name; the checkpoint with its best value is kept as well.
        best_mode: "max" or "min": which value of it is best.
        on_error: after a failed save (disk full): "stop" raises, "continue" logs and goes on.
    """

    def __init__(
        self,
        directory: str | Path,
        keep_last: int = 2,
        keep_best: str | None = None,
        best_mode: Literal["max", "min"] = "max",
        on_error: Literal["stop", "continue"] = "stop",
    ) -> None:
        if keep_last < 1:
            raise ConfigError(f"keep_last is {keep_last}, it must be at least 1")
        assert best_mode in ("max", "min"), best_mode
        assert on_error in ("stop", "continue"), on_error
        self.directory = Path(directory)
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.best_mode = best_mode
        self.on_error = on_error
        self._broken: set[Path] = set()  # found damaged by newest(): they don't count as kept
        self._verified: set[Path] = set()

    # ------------------------------------------------------------------------------- save

    def save(
        self,
        step: int,
        model: nn.Module | Mapping[str, Tensor],
        state: Mapping[str, Any],
        config: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        average: Mapping[str, Tensor] | None = None,
    ) -> Path | None:
        """Write ``step-NNNNNNNN/`` and delete what need not be kept.

        Args:
            step: optimizer steps done.
            model: may be wrapped in DistributedDataParallel or compiled; or its state dict.
            state: optimizer, schedule, RNG, sampler, ...: see `plain` for what it may hold.
            config: the run's config, for the manifest.
            metrics: evaluation results at this step, for ``keep_best``.
            average: averaged weights, for a file of their own.

        Returns:
            The directory; None when saving failed and ``on_error`` is "continue".

        Raises:
            CheckpointError: saving failed; older checkpoints are as they were.
        """
        path = self.directory / directory.name_of(step)
        weights = {directory.WEIGHTS: model} | ({directory.AVERAGE: average} if average else {})
        problem = None
        if distributed.is_main():
            try:
                self._write(path, weights, state, config, metrics or {})
                self._prune(path)
            except Exception as error:  # disk full shows as OSError, RuntimeError, SafetensorError
                problem = f"could not save {path}: {_cause(error)}; older checkpoints are untouched"
                log.error(problem)
        problem = distributed.all_gather_object(problem)[0]
        if problem is None:
            return path
        if self.on_error == "stop":
            raise CheckpointError(problem)
        return None

    def _write(
        self, path: Path, weights: Any, state: object, config: object, metrics: Mapping[str, float]
    ) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._clean()
        temporary = self.directory / f"{_TEMPORARY}{path.name}-{os.getpid()}"
        try:
            temporary.mkdir()
            aliases = {file: write_safetensors(w, temporary / file) for file, w in weights.items()}
            with open(temporary / directory.STATE, "wb") as file:
                torch.save(plain(state), file)
            manifest = {
                "format": directory.FORMAT,
                "step": directory.step_of(path),
                "metrics": {name: float(value) for name, value in metrics.items()},
                "files": {file.name: _entry(file) for file in sorted(temporary.iterdir())},
                "aliases": aliases[directory.WEIGHTS],
                "config": plain(config, "config"),
                "versions": _versions(),
            }
            text = json.dumps(manifest, indent=1, default=str)
            (temporary / directory.MANIFEST).write_text(text, encoding="utf-8")
            sync(temporary / directory.MANIFEST)
            sync(temporary)
            self._publish(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _publish(self, temporary: Path, path: Path) -> None:
        """Rename into place; at every moment either the old or the new checkpoint exists."""
        replaced = path.with_name(f"{directory.REPLACED}{path.name}")
        if path.exists():
            os.rename(path, replaced)
        os.rename(temporary, path)
        sync(self.directory)
        self._broken.discard(path)
        self._verified.discard(path)
        if replaced.exists():
            _delete(replaced)

    def _clean(self) -> None:
        """Remove what killed saves and failed deletions left behind."""
        for path in self.directory.glob(f"{directory.REPLACED}*"):
            original = path.with_name(path.name.removeprefix(directory.REPLACED))
            if original.exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.rename(path, original)
        for pattern in (f"{_TEMPORARY}*", f"{_TRASH}*"):
            for path in self.directory.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def _prune(self, saved: Path) -> None:
        steps = directory.present(self.directory)
        sound = [path for path in steps if path not in self._broken]
        kept = {saved, *sound[-self.keep_last :]}
        best = self._best(sound)
        for path in steps:
            # A damaged checkpoint later than this step is left for a person to look at.
            if path not in kept and path != best and (path in sound or path < min(kept)):
                _delete(path)

    # ------------------------------------------------------------------------------- load

    def newest(self) -> Path | None:
        """Return the newest whole checkpoint, the same on every rank; None if there are none.

        Raises:
            NothingToResume: there are checkpoints, and none is whole.
            CheckpointError: a rank does not see the one that rank 0 chose.
        """
        chosen = _on_main(lambda: directory.newest(self.directory, self._broken))
        path = chosen and self.directory / chosen.name  # each rank's own path to the shared folder
        if path is not None:
            seen = distributed.all_gather_object((path / directory.MANIFEST).is_file())
            if not all(seen):
                blind = ", ".join(str(r) for r, ok in enumerate(seen) if not ok)
                raise CheckpointError(
                    f"{path}: rank {blind} cannot see it; checkpoints must be in a folder that "
                    "all processes share"
                )
            self._verified.add(path)
        return path

    def load(self, path: str | Path, model: nn.Module) -> dict[str, Any]:
        """Fill the model from a checkpoint, strictly, and return the state that was saved with it.

        Raises:
            CheckpointError: damaged, or of another model; raised on every rank if on any.
        """
        path = Path(path)
        state: dict[str, Any] = {}
        problem = None
        try:
            if path not in self._verified:
                directory.verify(path)
            weights = read_weights(path / directory.WEIGHTS)
            load_state(model, weights, adapt=False, source=str(path / directory.WEIGHTS))
            state = torch.load(path / directory.STATE, map_location="cpu", weights_only=True)
        except CheckpointError as error:
            problem = str(error)
        except Exception as error:  # whatever a damaged pickle raises
            problem = f"{path / directory.STATE}: cannot be read: {error}"
        problems = distributed.all_gather_object(problem)
        if any(problems):
            raise CheckpointError(next(p for p in problems if p))
        return state

    def best(self) -> Path | None:
        """Return the kept checkpoint with the best value of ``keep_best``; None without any."""
        return _on_main(lambda: self._best(directory.present(self.directory)))

    def _best(self, steps: list[Path]) -> Path | None:
        sign = 1 if self.best_mode == "max" else -1
        best, best_value = None, -math.inf
        for path in steps if self.keep_best else []:
            try:
                metrics = read_manifest(path)["metrics"]
            except CheckpointError as error:
                log.warning("cannot compare a checkpoint: %s", error)
                continue
            value = sign * metrics.get(self.keep_best, math.nan)
            if value > best_value:  # never with NaN; of equals the first
                best, best_value = path, value
        return best


def _on_main(decide: Callable[[], T]) -> T:
    """Return on every rank what rank 0 decides, or raise its CheckpointError there."""
    outcome: tuple[T | None, CheckpointError | None] = (None, None)
    if distributed.is_main():
        try:
            outcome = decide(), None
        except CheckpointError as error:
            outcome = None, error
    result, problem = distributed.all_gather_object(outcome)[0]
    if problem is not None:
        raise problem
    return result


def _cause(error: BaseException) -> BaseException:
    """Return the OSError behind an error, if there is one: torch hides a full disk in its own."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, OSError):
        behind = behind.__cause__ or behind.__context__
    return behind or error


def _entry(path: Path) -> dict[str, Any]:
    sync(path)
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}


def _versions() -> dict[str, str]:
    return {
        "lavis_lite": lavis_lite.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def _delete(path: Path) -> None:
    """Delete a checkpoint; first its name, so that a half-deleted one is never found."""
    trash = path.with_name(f"{_TRASH}{path.name}")
    try:
        os.rename(path, trash)
        shutil.rmtree(trash)
    except OSError as error:
        log.warning("could not delete %s, training goes on: %s", path, error)
