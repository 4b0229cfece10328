"""Location of weights: the files behind a path, a URL, a run's folder or a hub repository."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_lite.checkpoint import directory
from lavis_lite.errors import CheckpointError, DownloadError
from lavis_lite.io.hub import why_no_hub
from lavis_lite.io.paths import cache_dir, local_path

IN_FOLDERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
CONFIG = "config.json"  # what transformers writes beside its weights
_REPOSITORY = re.compile(
    r"(?P<scheme>hf://)?(?P<repo>(?P<owner>[\w-][\w.-]*)/[\w-][\w.-]*?)(?:@(?P<revision>[^/]+))?/?"
)
_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class Origin:
    """The files that weights come from, and the config beside them.

    Attributes:
        files: one, or the shards of one set of weights.
        config: the ``config.json`` of a folder; None if there is none.
    """

    files: list[Path]
    config: Mapping[str, Any] | None = None


def find_weights(source: str | Path, sha256: str | None = None) -> Origin:
    """Return the local files of ``source``, fetched if it is remote.

    Args:
        source: a path, URL or ``hf://owner/repo/file`` of a file; a step directory; the output
            folder of a run (its newest whole checkpoint); a folder with ``model.safetensors``; or
            a repository of the hub, ``owner/repo`` or ``hf://owner/repo[@revision]``.
        sha256: digest of a file, if known.

    Raises:
        CheckpointError: no weights there.
        DownloadError: ``source`` could not be fetched.
    """
    repository = repository_in(str(source))
    path = _from_hub(str(source), repository) if repository else Path(local_path(source, sha256))
    return _in_folder(path) if path.is_dir() else Origin([path])


def _in_folder(folder: Path) -> Origin:
    if (folder / directory.MANIFEST).is_file():
        directory.verify(folder)
        return Origin([folder / directory.WEIGHTS])
    for runs in (folder / "checkpoints", folder):
        try:
            step = directory.newest(runs)
        except directory.NothingToResume as error:  # for a reader of weights the source is bad
            raise CheckpointError(str(error)) from error
        if step is not None:
            return Origin([step / directory.WEIGHTS])
    for name in IN_FOLDERS:
        if (folder / name).is_file():
            files = _shards(folder / name) if name.endswith(".json") else [folder / name]
            return Origin(files, _config(folder / CONFIG))
    seen = sorted(path.name for path in folder.iterdir())[:10]
    raise CheckpointError(
        f"{folder}: holds neither checkpoints nor any of {', '.join(IN_FOLDERS)}; "
        f"it has {', '.join(seen) or 'nothing'}"
    )


def _config(path: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return content if isinstance(content, dict) else None


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: is not an index of weight files") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: names {name!r}, which is not beside it")
    return [index.parent / name for name in names]


# --------------------------------------------------------------------------------- the hub


def repository_in(source: str) -> re.Match[str] | None:
    """Match a source that looks like a hub repository and does not exist on this disk."""
    match = _REPOSITORY.fullmatch(source)
    if match is None or match["scheme"]:
        return match
    local = source.endswith(_FILES) or Path(match["owner"]).exists()
    return None if local else match


def _from_hub(source: str, repository: re.Match[str]) -> Path:
    """Fetch a repository's weights and config; return their folder."""
    at = f"@{repository['revision']}" if repository["revision"] else ""

    def fetch(name: str) -> Path | None:
        """Fetch a file; return None if the repository has no such file."""
        try:
            return Path(local_path(f"hf://{repository['repo']}/{name}{at}"))
        except DownloadError as error:
            if _is_absent(error):
                return None
            elsewhere = "" if repository["scheme"] else "nothing on this disk, and "
            raise DownloadError(f"{source}: {elsewhere}{error}") from error

    for name in IN_FOLDERS:
        if (file := fetch(name)) is not None:
            for shard in _shards(file) if name.endswith(".json") else ():
                fetch(shard.name)
            fetch(CONFIG)
            return file.parent
    reason = why_no_hub()
    where = f"{reason}, and {cache_dir() / 'hub'}" if reason else "the hub's repository"
    raise DownloadError(
        f"{source}: {where} has none of {', '.join(IN_FOLDERS)}; a folder that you fetched "
        "elsewhere can be given by its path"
    )


def _is_absent(error: DownloadError) -> bool:
    """Tell whether only the file is absent, not the repository or the network."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cause = error.__cause__
    local = isinstance(cause, LocalEntryNotFoundError)
    return isinstance(cause, EntryNotFoundError) and (not local or why_no_hub() is not None)
