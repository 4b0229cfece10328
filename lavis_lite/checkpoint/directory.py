"""Step directories: the files of a run's checkpoints, and the newest that is whole.

``step-00000500/`` holds ``model.safetensors``, ``state.pt`` and ``manifest.json``, which has the
size and sha256 of the others; and ``ema.safetensors`` if a run averages its weights. Without
its manifest a step directory does not exist.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from lavis_lite.errors import CheckpointError
from lavis_lite.io.files import sha256_of

log = logging.getLogger(__name__)

WEIGHTS, STATE, MANIFEST = "model.safetensors", "state.pt", "manifest.json"
AVERAGE = "ema.safetensors"  # only of runs that average their weights
FORMAT = 1  # of the manifest; a reader refuses a higher one
REPLACED = ".replaced-"  # a checkpoint that was moved aside while its successor took its name

_NAME = re.compile(r"step-(\d{8,})")


class NothingToResume(CheckpointError):
    """There are checkpoints, and none of them can be loaded."""

    exit_code = 3


def name_of(step: int) -> str:
    """Return the name of a step's directory: ``step-00000500`` for 500."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int | None:
    """Return the step of a directory: 500 for ``.../step-00000500``, None for another name."""
    match = _NAME.fullmatch(path.name.removeprefix(REPLACED))
    return int(match[1]) if match else None


def present(directory: str | Path) -> list[Path]:
    """List the step directories that have a manifest, by ascending step; not verified."""
    directory = Path(directory)
    by_step: dict[int, Path] = {}
    # Sorted, ".replaced-step-1" comes before "step-1", which then takes its place.
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        step = step_of(path)
        if step is not None and (path / MANIFEST).is_file():
            by_step[step] = path
    return [by_step[step] for step in sorted(by_step)]


def newest(directory: str | Path, broken: set[Path] | None = None) -> Path | None:
    """Return the newest step directory whose files are whole, None if there are none.

    A directory that is not whole gives a warning and is added to ``broken``, and the one before it
    is tried.

    Raises:
        NothingToResume: there are checkpoints, and none is whole.
    """
    steps = present(directory)
    for path in sorted(Path(directory).glob("step-*")):
        if step_of(path) is not None and not (path / MANIFEST).exists():
            log.warning("%s has no %s, so it counts as never written", path, MANIFEST)
    for path in reversed(steps):
        try:
            verify(path)
            return path
        except CheckpointError as error:
            log.warning("cannot use a checkpoint, trying the one before: %s", error)
            if broken is not None:
                broken.add(path)
    if steps:
        raise NothingToResume(
            f"{directory}: none of its {len(steps)} checkpoints is whole "
            f"({', '.join(path.name for path in steps[:10])}); move them away to start anew"
        )
    return None


def verify(path: str | Path) -> dict[str, Any]:
    """Compare the size and sha256 of every file with the manifest, and return the manifest.

    Raises:
        CheckpointError: a file is missing, cut or altered.
    """
    path = Path(path)
    manifest = read_manifest(path)
    for name, recorded in manifest["files"].items():
        try:
            size = (path / name).stat().st_size
            if size != recorded["size"]:
                raise CheckpointError(
                    f"{path / name}: has {size} bytes, {MANIFEST} says {recorded['size']}"
                )
            digest = sha256_of(path / name)
        except OSError as error:
            raise CheckpointError(f"{path / name}: {error.strerror or error}") from error
        if digest != recorded["sha256"]:
            raise CheckpointError(
                f"{path / name}: sha256 is {digest}, {MANIFEST} says {recorded['sha256']}"
            )
    return manifest


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read ``manifest.json``: format, step, files, aliases, config, metrics, versions.

    Raises:
        CheckpointError: missing, unreadable, or of a later format than this release knows.
    """
    file = Path(path) / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        files = manifest["files"]
        names = {WEIGHTS, *files}
        sound = WEIGHTS in files and all(Path(n).name == n for n in names)
        sound = sound and all({"size", "sha256"} <= set(entry) for entry in files.values())
        step, version = int(manifest["step"]), int(manifest["format"])
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file}: is damaged ({type(error).__name__}: {error})") from error
    if not sound or step_of(Path(path)) not in (None, step):
        raise CheckpointError(f"{file}: is damaged (it does not describe this directory)")
    if version > FORMAT:
        raise CheckpointError(
            f"{file}: has format {version}, this lavis_lite reads up to {FORMAT}; update it"
        )
    return manifest
