"""Folders of models on the hub: published whole, and fetched at one commit.

Tokens are those of huggingface_hub (``HF_TOKEN``, or its login); nothing here writes or logs one.
Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from lavis_lite.errors import CheckpointError, ConfigError, DownloadError
from lavis_lite.io.hub import hub_client, why_no_hub
from lavis_lite.io.json_files import read_json, write_json
from lavis_lite.io.paths import cache_dir, local_path
from lavis_lite.io.redaction import REDACTED, redacted_urls

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

CONFIG, CARD = "config.json", "README.md"
# What a model's folder has; nothing else of a folder is published or fetched.
HELD = (CONFIG, "model.safetensors", "vocab.txt", "tokenizer_config.json", CARD, "tokenizer/*")
PLACEHOLDER = "PATH/OF/THIS/FOLDER"  # in the card, where its own address will stand
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit, with the names of its files."""

    commit: str
    files: list[str]


def check_repository(repository: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        ConfigError: with the form that is expected.
    """
    if not isinstance(repository, str) or not _REPOSITORY.fullmatch(repository):
        raise ConfigError(f"{repository!r}: a repository of the hub is expected, as owner/name")


def push_folder(
    folder: str | Path,
    repository: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> str:
    """Publish a model's folder in one commit, and return the address of that commit.

    Args:
        folder: of ``save_pretrained``; of other files in it none is sent.
        repository: ``owner/name``; made if it is not there.
        private: of a repository that is made; None: as the owner has it set.
        revision: a branch, made if it is not there; None: the main one.
        message: of the commit.
        token: in place of ``HF_TOKEN`` or the login of huggingface_hub. It is not kept.

    Raises:
        ConfigError: not a repository's name, or no model in the folder.
        DownloadError: the hub cannot be reached, or refuses.
    """
    check_repository(repository)
    folder = Path(folder)
    names = _held(folder)
    if missing := [name for name in HELD[:2] if name not in names]:
        raise ConfigError(f"{folder}: no {missing[0]}; a folder of save_pretrained is expected")
    if reason := why_no_hub():
        raise DownloadError(f"{repository}: not published: {reason}")
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        with hub_client():
            api.create_repo(repository, private=private, exist_ok=True)
            if revision is not None and not _COMMIT.fullmatch(revision):
                api.create_branch(repository, branch=revision, exist_ok=True)
            done = api.create_commit(
                repository,
                [_addition(folder, name, repository) for name in names],
                commit_message=message or "Publish the model with lavis_lite",
                revision=revision,
            )
    except Exception as error:  # its errors are of many families
        raise DownloadError(f"{repository}: not published: {_reason(error, token)}") from None
    return str(done.commit_url)


def fetch_folder(repository: str, revision: str | None = None) -> Path | None:
    """Fetch the folder of a model of ours from the hub; None where the repository holds another.

    A branch or tag stands for its commit at this moment; offline, for the one last seen.

    Args:
        repository: ``owner/name``.
        revision: branch, tag or commit; None: the main branch.

    Raises:
        DownloadError: no such repository or revision, or it cannot be fetched.
    """
    found = _snapshot(repository, revision)
    if CONFIG not in found.files:
        return None
    config = Path(local_path(f"hf://{repository}/{CONFIG}@{found.commit}"))
    if not _is_ours(config):
        return None
    for name in found.files:
        if name != CONFIG and _is_held(name):
            local_path(f"hf://{repository}/{name}@{found.commit}")
    return config.parent


def _is_ours(config: Path) -> bool:
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{config}: is damaged ({error})") from None
    return isinstance(content, dict) and "lavis_lite" in content


def _held(folder: Path) -> list[str]:
    inside = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in inside if _is_held(name))


def _is_held(name: str) -> bool:
    return ".." not in name.split("/") and any(fnmatch(name, pattern) for pattern in HELD)


def _addition(folder: Path, name: str, repository: str) -> CommitOperationAdd:
    from huggingface_hub import CommitOperationAdd

    if name != CARD:
        return CommitOperationAdd(name, folder / name)
    return CommitOperationAdd(name, _card(folder / name, repository).encode())


def _card(path: Path, repository: str) -> str:
    """The card with the repository's name, and without folders of this machine."""
    text = path.read_text(encoding="utf-8").replace(PLACEHOLDER, repository)
    return re.sub(r"(?m)^(\| Trained from \| )/(?:[^|\n]*/)?([^/|\n]+) \|$", r"\1\2 |", text)


def _snapshot(repository: str, revision: str | None) -> Snapshot:
    """The repository at a revision; where the hub cannot be asked, as it was noted last."""
    note = cache_dir() / "hub-notes" / f"{repository.replace('/', '--')}@{_quoted(revision)}.json"
    reason = why_no_hub()
    if reason is None:
        found = _asked(repository, revision)
        with contextlib.suppress(OSError):  # read-only: the hub is asked again next time
            write_json(note, vars(found))
        return found
    try:
        return Snapshot(**read_json(note))
    except (OSError, ValueError, TypeError):
        at = f" at {revision}" if revision else ""
        raise DownloadError(
            f"{repository}{at}: nothing on this disk, and {reason}; fetch "
            f"https://huggingface.co/{repository} elsewhere and give the path of its folder"
        ) from None


def _asked(repository: str, revision: str | None) -> Snapshot:
    from huggingface_hub import HfApi

    api: HfApi = HfApi()
    try:
        with hub_client(repository):
            info = api.model_info(repository, revision=revision)
    except Exception as error:
        at = f" at {revision}" if revision else ""
        raise DownloadError(f"{repository}{at}: {_reason(error, None)}") from None
    return Snapshot(str(info.sha), [one.rfilename for one in info.siblings or ()])


def _quoted(revision: str | None) -> str:
    return re.sub(r"[^\w.-]", "-", revision or "main")


def _reason(error: Exception, token: str | None) -> str:
    """An error of the hub's client in one line, without secrets, with what helps."""
    from huggingface_hub import errors

    lines = [line for line in str(error).splitlines() if line.strip()]
    text = redacted_urls(lines[0] if lines else type(error).__name__)
    if token:
        text = text.replace(token, REDACTED)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no such revision ({text})"
    if status in (401, 403, 404):
        return f"{text}; is the name right? A private one needs HF_TOKEN, or `hf auth login`"
    return text
