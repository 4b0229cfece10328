"""Reading config files: YAML through OmegaConf, ``_base_`` includes, where each key came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lavis_lite.config.merge import merge
from lavis_lite.errors import ConfigError, suggest

KeyPath = tuple[str | int, ...]
MAX_BYTES = 1_000_000
MAX_INCLUDES = 20


class Source(NamedTuple):
    """A config as plain dicts and lists, and for each of its key paths the file that set it."""

    tree: dict[str, Any]
    origin: dict[KeyPath, str]


def config_root() -> Path:
    """The folder of the configs that come with lavis_lite: in a checkout or in a wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "configs"
    if checkout.is_dir() and (package.parent / "setup.py").is_file():
        return checkout
    return package / "configs"


def find(path: str, relative_to: Path | None = None) -> Path:
    """The config file meant by ``path``: relative to the including file, as given, or packaged."""
    name = path if path.endswith((".yaml", ".yml")) else path + ".yaml"
    places = [Path(name), config_root() / name, config_root().parent / name]
    if relative_to is not None:
        places.insert(0, relative_to / name)
    for place in places:
        if place.is_file():
            return place
    known = [str(p.relative_to(config_root())) for p in config_root().rglob("*.yaml")]
    raise ConfigError(f"no config file {path!r}.{suggest(path, known)}")


def read(path: Path, including: tuple[Path, ...] = ()) -> Source:
    """The file with its ``_base_`` files merged underneath it.

    Raises:
        ConfigError: naming the file, for anything that is not a plain, finite tree.
    """
    path = path.resolve()
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
        below = read(find(str(base), path.parent), (*including, path))
        merged = Source(merge(merged.tree, below.tree), merged.origin | below.origin)
    own = {key_path: str(path) for key_path in key_paths(tree)}
    return Source(merge(merged.tree, tree), merged.origin | own)


def key_paths(tree: Any, prefix: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key path in a tree, inner ones included."""
    if prefix:
        yield prefix
    for key, value in items(tree):
        yield from key_paths(value, (*prefix, key))


def items(tree: Any) -> Iterable[tuple[str | int, Any]]:
    """What a mapping or list holds, by key or index; nothing for a plain value."""
    if isinstance(tree, dict):
        return tree.items()
    return enumerate(tree) if isinstance(tree, list) else ()


def _parse(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; this is no config")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except (YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        raise ConfigError(f"{path}: {_first_lines(error)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping is expected, not {type(tree).__name__}")
    return tree  # type: ignore[return-value]


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())[:500]
