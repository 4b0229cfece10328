"""Tar shards read by position: where each sample's members lie, found once without unpacking."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

from lavis_lite.data.files.tar_headers import DamagedHeader, Member, members
from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import DataError, suggest
from lavis_lite.io import paths

_PICKLES = {"pyd", "pickle", "pkl", "pck", "pt", "pth", "joblib"}
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_INDEX_VERSION = 3
MOST_SHARDS = 10_000_000  # that a pattern may list

Members = dict[str, tuple[int, int]]  # extension -> (offset, size)


@dataclass
class ShardIndex:
    """The positions of the samples of one shard, and the shard's defects.

    Args:
        samples: key and members of each sample, in the order of the file.
        refused: reason -> number of members that are not read.
        cut: why the end of the file could not be read; None where it could.
    """

    samples: list[tuple[str, Members]] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    cut: str | None = None


def index_shard(path: Path, cache: str | None = None) -> ShardIndex:
    """The index of one uncompressed tar file.

    Members of one key are one sample, wherever in the file they are. Refused, with a count: members
    outside the archive's folder, links, devices, pickles (reading one can run code), hidden ones,
    ones without a key or an extension, and those of a sample that comes twice. Nothing is ever
    unpacked.

    Args:
        cache: a folder where indices are kept; one is used while size and time of the file match.

    Raises:
        DataError: not a tar file, or a compressed one.
    """
    if cache is None:
        return _read_index(path)
    state = path.stat()
    stamp = [_INDEX_VERSION, state.st_size, state.st_mtime_ns]
    kept = Path(cache) / f"{path.stem}-{stable_hash(str(path.resolve())):016x}.json"
    if kept.is_file():
        try:
            stored = json.loads(kept.read_text())
            if stored.pop("stamp") == stamp:
                return ShardIndex(**stored)
        except (ValueError, TypeError, AttributeError, KeyError):
            pass  # damaged: made anew
    index = _read_index(path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"stamp": stamp, **asdict(index)}))
    temporary.replace(kept)
    return index


def _read_index(path: Path) -> ShardIndex:
    samples: dict[str, Members] = {}
    index, refused = ShardIndex(), Counter[str]()
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: empty file")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: may not be read: no permission")
    is_tar = False
    try:
        with path.open("rb") as file:
            for member in members(file):
                is_tar = True
                if member.offset + member.size > size:
                    raise EOFError(f"ends in the middle of {member.name}")
                if reason := _refusal(member):
                    refused[reason] += 1
                elif member.kind == "file":
                    _add(samples, member, refused)
    except (DamagedHeader, EOFError) as error:
        if not is_tar:
            hint = "compressed: unpack it (gunzip) to read by position"
            raise DataError(
                f"{path}: not a plain tar file: {hint if _is_packed(path) else error}"
            ) from None
        index.cut = str(error)
    index.samples, index.refused = list(samples.items()), dict(refused)
    return index


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5")


def leads_out(name: str) -> bool:
    """Tell whether a member's path would leave the folder that an archive is unpacked to."""
    absolute = name.startswith("/") or re.match("[A-Za-z]:", name)
    return bool(absolute) or ".." in name.split("/") or "\\" in name or "\0" in name


def _refusal(member: Member) -> str | None:
    if leads_out(member.name):
        return "a path that leads out of the archive"
    if member.kind not in ("file", "folder"):
        return member.kind
    suffixes = set(member.name.rpartition("/")[2].lower().split(".")[1:])
    return "a pickle" if member.kind == "file" and suffixes & _PICKLES else None


def _add(samples: dict[str, Members], member: Member, refused: Counter[str]) -> None:
    """Put a member into the sample of its key, which ends at the first dot of the name."""
    folder, slash, name = member.name.rpartition("/")
    stem, _, extension = name.partition(".")
    key, extension = folder + slash + stem, extension.lower()
    if name.startswith(".") or any(part[:1] == "." and part != "." for part in folder.split("/")):
        refused["hidden: the name begins with a dot"] += 1
    elif not stem or not extension:
        refused["a name without an extension"] += 1
    elif extension in (members := samples.setdefault(key, {})):
        refused["a sample that comes twice"] += 1
    else:
        members[extension] = (member.offset, member.size)


def find_shards(shards: str | list[str], missing_ok: bool = False) -> tuple[list[Path], list[str]]:
    """The local files of paths, folders, URLs, patterns (`*`, `{000..009}`); and what is missing.

    Raises:
        DataError: an address that is a command or that nothing here reads; a missing shard,
            unless `missing_ok`.
    """
    local_files: list[Path] = []
    missing: list[str] = []
    for given in [shards] if isinstance(shards, str) else shards:
        for one in expand_braces(given):
            files = _find(one)
            local_files += files
            if not files:
                missing.append(one)
    if missing and not missing_ok:
        first = Path(missing[0])
        beside = [file.name for file in first.parent.iterdir()] if first.parent.is_dir() else []
        raise DataError(
            f"{len(missing)} of {len(local_files) + len(missing)} shards are missing, the first is"
            f" {missing[0]}.{suggest(first.name, beside)} To go on without: missing_ok: true"
        )
    if not local_files:
        raise DataError(f"{shards}: no shards there")
    return local_files, missing


def expand_braces(pattern: str) -> list[str]:
    """`a-{00..02}.tar`, `{a,b}.tar` -> each name, as a shell does.

    Raises:
        DataError: more names than any dataset has shards.
    """
    parts = _BRACES.split(pattern)
    choices = [[part] if place % 2 == 0 else _choices(part) for place, part in enumerate(parts)]
    if (count := math.prod(map(len, choices))) > MOST_SHARDS:
        raise DataError(f"{pattern}: {count:,} shards; at most {MOST_SHARDS:,} are listed")
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(inside: str) -> list[str]:
    found = _RANGE.fullmatch(inside)
    if not found:
        return inside.split(",") if "," in inside else ["{" + inside + "}"]
    first, last = found.groups()
    step = 1 if int(first) <= int(last) else -1
    if abs(int(last) - int(first)) >= MOST_SHARDS:
        raise DataError(f"{{{inside}}}: at most {MOST_SHARDS:,} shards are listed")
    return [str(n).zfill(len(first)) for n in range(int(first), int(last) + step, step)]


def _find(address: str) -> list[Path]:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", address)
    if scheme and not os.path.exists(address):
        if scheme[1].lower() not in paths.SCHEMES:
            raise DataError(
                f"{address}: {scheme[1]}: is not read here (commands in shard addresses are never"
                f" run); known: paths, {', '.join(paths.SCHEMES)}"
            )
        return [Path(paths.local_path(address))]
    path = Path(paths.local_path(address))
    if path.is_dir():
        return _shown(path.glob("*.tar"))
    if set("*?[") & set(path.name) and not path.exists():
        return _shown(path.parent.glob(path.name))
    return [path] if path.is_file() else []


def _shown(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if not path.name.startswith("."))


def packed_shards(folder: Path) -> list[Path]:
    """The compressed tars in a folder, which stay unread beside plain ones."""
    endings = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
    return _shown(one for one in folder.glob("*") if one.name.lower().endswith(endings))
