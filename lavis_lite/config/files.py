"""Config files: YAML through OmegaConf, ``_base_`` includes, and the origin of each key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lavis_lite.config.overrides import why_unreadable
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.registry.component import merge

KeyPath = tuple[str | int, ...]
MAX_BYTES = 1_000_000
MAX_INCLUDES = 20


class Source(NamedTuple):
    """A config as plain dicts and lists, with the file that set each of its key paths.

    ``name`` is how the config was asked for; it stands for the origin of keys that nobody set.
    ``typed`` has the text of what was set on the command line: a key that takes a text takes it
    as typed, also where YAML reads a number or a list.
    """

    tree: dict[str, Any]
    origin: dict[KeyPath, str]
    name: str = ""
    typed: Mapping[KeyPath, str] = {}

    def over(self, other: Source) -> Source:
        """Merge this source over ``other``.

        Raises:
            ConfigError: a key that reaches past the end of a list.
        """
        tree, origin = merge(other.tree, self.tree), other.origin | self.origin
        return Source(tree, origin, self.name, {**other.typed, **self.typed})

    def where(self, path: KeyPath) -> str:
        """Return the file (or command line) that set the longest known part of a key path."""
        parts = (path[:length] for length in range(len(path), 0, -1))
        return next((self.origin[part] for part in parts if part in self.origin), self.name)

    def locate(self, path: KeyPath, problem: str) -> str:
        """Write a problem as in reports: origin, key path, problem."""
        return f"{self.where(path)}: {spell(path)}: {problem}"


def said_by(name: str, tree: dict[str, Any]) -> Source:
    """Return a source whose keys were all set by one file, or by the command line."""
    return Source(tree, dict.fromkeys(key_paths(tree), name), name)


def config_root() -> Path:
    """Return the folder of the configs that come with lavis_lite: in a checkout or in a wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "configs"
    if checkout.is_dir() and (package.parent / "setup.py").is_file():
        return checkout
    return package / "configs"


def find(path: str, relative_to: Path | None = None) -> Path:
    """Find the config file ``path``: relative to the including file, as given, or packaged.

    Args:
        path: as written; also a URL or ``hf://`` address, which is fetched.
        relative_to: the folder of the including file.

    Raises:
        ConfigError: no such file.
        DownloadError: it could not be fetched.
    """
    from lavis_lite.io.paths import (
        is_remote,  # most commands read no config
        local_path,
    )

    if is_remote(path):
        return Path(local_path(path))
    name = path if path.endswith((".yaml", ".yml")) else path + ".yaml"
    places = [Path(local_path(name)), config_root() / name, config_root().parent / name]
    if relative_to is not None:
        places.insert(0, relative_to / name)
    for place in places:
        if place.is_file():
            return place
    other = Path(local_path(path))
    if path and other.exists():
        kind = "a folder" if other.is_dir() else "a file of another kind"
        raise ConfigError(f"{path}: {kind}; a config is a .yaml file")
    raise ConfigError(f"no config file {path!r}.{_nearest(path)}")


def _nearest(path: str) -> str:
    """Return the packaged config nearest to a path that does not exist, spelt as the path is."""
    known = [p.relative_to(config_root()) for p in config_root().rglob("*.yaml")]
    spelt = path if path.endswith((".yaml", ".yml")) else f"{path}.yaml"
    root = f"{config_root().name}/"
    near = suggest(spelt, [f"{root if path.startswith(root) else ''}{p.as_posix()}" for p in known])
    return near or " `lavis-lite list configs` lists those that come with lavis_lite"


def beside(name: Any, origin: str | None) -> Any:
    """Return a file name in a config as a full path if the file is beside that config.

    Args:
        name: a path as written; any other value is returned unchanged.
        origin: the config that has the value.
    """
    if not isinstance(name, str) or origin is None:
        return name
    folder = Path(origin).parent
    for place in (folder / name, folder / f"{name}.yaml"):
        if place.is_file():
            return str(place.resolve())
    return name


def read(
    path: Path, including: tuple[Path, ...] = (), done: dict[Path, Source] | None = None
) -> Source:
    """Read a config file and merge it over its ``_base_`` files.

    Args:
        path: the file.
        including: the files that are being read, each the ``_base_`` of the one before.
        done: the files that have been read; each is read once, however many include it.

    Raises:
        ConfigError: naming the file, for anything that is not a plain, finite tree.
    """
    path, done = path.resolve(), {} if done is None else done
    if path in done:
        return done[path]
    if path in including:
        chain = " -> ".join(str(p) for p in (*including[including.index(path) :], path))
        raise ConfigError(f"{path}: _base_ goes in a circle: {chain}")
    if len(including) >= MAX_INCLUDES:
        raise ConfigError(f"{path}: _base_ files are nested more than {MAX_INCLUDES} deep")
    tree = _parse(path)
    bases = tree.pop("_base_", [])
    if not isinstance(bases, str | list):
        raise ConfigError(f"{path}: _base_: a path or a list of paths, not {bases!r}")
    merged = Source({}, {})
    for base in [bases] if isinstance(bases, str) else bases:
        merged = read(_find_base(base, path), (*including, path), done).over(merged)
    done[path] = said_by(str(path), tree).over(merged)
    return done[path]


def _find_base(base: object, path: Path) -> Path:
    try:
        return find(str(base), path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: _base_: {error}") from None


def spell(path: KeyPath) -> str:
    """Write a key path in the notation of overrides: ``data.train[0].split``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def key_paths(tree: object, prefix: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield every key path in a tree, inner ones included."""
    if prefix:
        yield prefix
    for key, value in items(tree):
        yield from key_paths(value, (*prefix, key))


def texts(tree: object, prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Yield every text in a tree, with its key path."""
    if isinstance(tree, str):
        yield prefix, tree
    for key, value in items(tree):
        yield from texts(value, (*prefix, key))


def items(tree: object) -> Iterable[tuple[str | int, Any]]:
    """Return what a mapping or list holds, by key or index; nothing for a plain value."""
    if isinstance(tree, dict):
        return tree.items()
    return enumerate(tree) if isinstance(tree, list) else ()


def _parse(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; this is not a config")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, OmegaConfBaseException, ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{path}: {why_unreadable(error)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping is expected, not {type(tree).__name__}")
    return tree  # type: ignore[return-value]
