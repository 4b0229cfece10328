"""Locate the files of a tokenizer or a BERT checkpoint: by path, folder or hub id."""

from __future__ import annotations

from pathlib import Path

from lavis_lite.errors import ConfigError, DownloadError
from lavis_lite.io.hub import fetch_elsewhere, hub_client, offline, why_no_hub
from lavis_lite.io.paths import local_path


def locate(source: str | Path, names: tuple[str, ...], what: str) -> Path:
    """Return the first of the files ``names`` that ``source`` has.

    Args:
        source: the file itself, also by its URL or ``hf://owner/repo/file``; a folder that holds
            one of ``names``; or a hub id (``owner/name`` or a bare name such as
            ``bert-base-uncased``).
        names: file names, the preferred one first.
        what: a name for the file in error messages.

    Raises:
        ConfigError: nothing there.
        DownloadError: a hub id that is not in the cache and cannot be fetched.
    """
    path = Path(local_path(source))
    if path.is_file():
        return path
    expected = " or ".join(names)
    if path.is_dir():
        for name in names:
            if (path / name).is_file():
                return path / name
        raise ConfigError(f"{what}: the folder {path} holds no {expected}")
    if not is_hub_id(str(source)):
        raise ConfigError(
            f"{what}: {source} does not exist; expected a folder with {expected}, such a file, "
            "or a hub id"
        )
    return from_hub(str(source), names, what)


def is_hub_id(source: str) -> bool:
    """Tell whether ``source`` looks like ``name`` or ``owner/name`` rather than like a path."""
    parts = source.split("/")
    return len(parts) <= 2 and all(
        part and not part.startswith((".", "~")) and not part.endswith((".txt", ".json", ".bin"))
        for part in parts
    )


def from_hub(repo: str, names: tuple[str, ...], what: str) -> Path:
    """Return the first of ``names`` in a hub repository, from the local cache or downloaded."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    reason: Exception | None = None
    try:
        for name in names:
            cached = try_to_load_from_cache(repo, name)
            if isinstance(cached, str):
                return Path(cached)
        for name in names:
            try:
                with hub_client(repo):
                    return Path(hf_hub_download(repo, name, local_files_only=offline()))
            except LocalEntryNotFoundError:  # no network: the other names would fail alike
                raise
            except EntryNotFoundError as error:
                reason = error
    except (OSError, HFValidationError) as error:
        reason = error
    if why_no_hub() is not None:
        advice = fetch_elsewhere(repo, instead(names, what))
        raise DownloadError(f"{what}: {' or '.join(names)} of {repo!r}: {advice}") from reason
    raise DownloadError(
        f"{what}: no {' or '.join(names)} of the hub repository {repo!r} "
        f"({type(reason).__name__}: {first_line(reason)}). Without a network, download it "
        f"elsewhere and give the path of the folder in place of {repo!r}"
    ) from reason


def instead(names: tuple[str, ...], what: str) -> str:
    """Name the folder to give in place of a hub id, by the key where there is one."""
    key = "`tokenizer=FOLDER` (in a config `model.tokenizer`)" if what == "tokenizer" else "FOLDER"
    return f"{key}, a folder that holds {' or '.join(names)}"


def hub_error(what: str, name: str, error: Exception, instead: str) -> ConfigError | DownloadError:
    """Return the error to raise for a failed load by transformers.

    Args:
        what: a name for the thing to load, for the message.
        name: hub id or folder.
        error: the error that transformers raised.
        instead: what to give in place of the name once it was fetched elsewhere.
    """
    if Path(name).exists():
        return ConfigError(f"{what}: {first_line(error)}")
    if why_no_hub() is not None:
        return DownloadError(f"{what}: {fetch_elsewhere(name, instead)}")
    if _is_unreachable(error):
        return DownloadError(f"{what}: {first_line(error)} Fetch it elsewhere and give {instead}")
    return ConfigError(f"{what}: {first_line(error)} A folder works too: hf//path")


def _is_unreachable(error: BaseException | None) -> bool:
    """Tell whether the network caused an error, which transformers hides in an OSError."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while error is not None:
        if isinstance(error, LocalEntryNotFoundError | ConnectionError | TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False


def first_line(error: Exception | None) -> str:
    """The first line of an error's message, or an empty string.

    transformers advises to trust a repository's code; here nothing does.
    """
    if "trust_remote_code" in str(error):
        return "it comes with code of its own, and such code is never run here"
    return next(iter(str(error).strip().splitlines()), "")
