"""Where registered names come from: the core, the projects, installed packages, a user's files.

Each package that registers something has a ``zoo.yaml`` beside its ``__init__.py``::

    components:                 # kind -> module, relative to the package -> names
      loss: {.contrastive: [itc]}
    runner_configs:             # runner name -> its Config dataclass
      capfilt: .capfilt_config:CapfiltConfig
    models: ...                 # model cards, read by lavis_lite.zoo
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lavis_lite.errors import ConfigError

logger = logging.getLogger(__name__)
ENTRY_POINT_GROUP = "lavis_lite.projects"


class ComponentIndex:
    """The union of all zoo.yaml files: which module registers which name.

    A package that cannot be found, read or imported is named in ``failures`` and breaks
    nothing else.

    Args:
        packages: importable packages with a zoo.yaml; None finds the core, the projects and the
            entry points of the group ``lavis_lite.projects``.
    """

    def __init__(self, packages: Iterable[str] | None = None) -> None:
        self._packages = packages
        self.failures: dict[str, str] = {}

    @functools.cached_property
    def zoos(self) -> dict[str, dict[str, Any]]:
        """Package name -> the contents of its zoo.yaml."""
        found: dict[str, dict[str, Any]] = {}
        names = _find_packages() if self._packages is None else self._packages
        for package in names:
            try:
                found[package] = _read_zoo(package)
            except Exception as error:  # a stranger's package must not break the listing
                self._fail(package, error)
        return found

    @functools.cached_property
    def _modules(self) -> dict[tuple[str, str], str]:
        table: dict[tuple[str, str], str] = {}
        for package, zoo in self.zoos.items():
            for kind, modules in zoo.get("components", {}).items():
                for module, listed in modules.items():
                    for name in listed:
                        self._list(table, (kind, name), package + module)
        return table

    def _list(self, table: dict[tuple[str, str], str], key: tuple[str, str], module: str) -> None:
        if key in table:
            self._fail(module, ConfigError(f"{key[0]} {key[1]!r} already belongs to {table[key]}"))
        else:
            table[key] = module

    def names(self, kind: str) -> list[str]:
        """Every listed name of a kind."""
        return [name for its_kind, name in self._modules if its_kind == kind]

    def load(self, kind: str, name: str) -> None:
        """Import the module that registers ``name``; a failure is recorded, not raised."""
        module = self._modules.get((kind, name))
        if module is None:
            return
        try:
            importlib.import_module(module)
        except Exception as error:
            self._fail(module, error)

    def runner_config(self, runner: str) -> type | None:
        """The Config dataclass of a runner, imported from where its zoo.yaml says."""
        for package, zoo in self.zoos.items():
            if target := zoo.get("runner_configs", {}).get(runner):
                module, _, attribute = target.partition(":")
                return getattr(importlib.import_module(package + module), attribute)
        return None

    def _fail(self, module: str, error: Exception) -> None:
        self.failures[module] = f"{type(error).__name__}: {error}"
        logger.warning("%s cannot be used: %s", module, self.failures[module])


def load_plugin(plugin: str) -> None:
    """Import a researcher's own file or module, so that what it registers is available.

    Args:
        plugin: a path ending in ``.py``, or an importable module. Loaded once per process.

    Raises:
        ConfigError: it does not exist or fails to import; the message names it and the cause.
    """
    try:
        if plugin.endswith(".py"):
            _import_file(Path(plugin))
        else:
            importlib.import_module(plugin)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"plugin {plugin!r} fails: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> None:
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(f"plugin {str(path)!r} does not exist")
    # One stable module name per file: pickled workers and a second load find the same module.
    name = f"lavis_lite_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _find_packages() -> Iterator[str]:
    yield "lavis_lite"
    import lavis_lite.projects

    for folder in lavis_lite.projects.__path__:
        for zoo in sorted(Path(folder).glob("*/zoo.yaml")):
            yield f"lavis_lite.projects.{zoo.parent.name}"
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        yield point.value


def _read_zoo(package: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"no package {package!r}")
    for folder in spec.submodule_search_locations:
        path = Path(folder) / "zoo.yaml"
        if path.is_file():
            zoo = OmegaConf.to_container(OmegaConf.load(path))
            assert isinstance(zoo, dict)
            return zoo
    raise ConfigError(f"package {package!r} has no zoo.yaml")
