"""The sources of registered names: the core, the projects, installed packages, a user's files.

Each package that registers something has a ``zoo.yaml`` beside its ``__init__.py``::

    components:                 # kind -> module, relative to the package -> names
      loss: {.contrastive: [itc]}
    runner_configs:             # runner name -> its Config dataclass
      capfilt: .capfilt_config:CapfiltConfig
    commands:                   # sub-command of lavis-lite -> a function of its arguments, help
      tidy: {call: ".tidy:main", help: "put a run in order"}
    models: ...                 # model cards, read by lavis_lite.registry.cards
    vocabularies:               # a tokenizer of the hub -> its tokens: a size without its files
      bert-base-uncased: 30522
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lavis_lite.errors import ConfigError

logger = logging.getLogger(__name__)
ENTRY_POINT_GROUP = "lavis_lite.projects"
FILE_PREFIX = "lavis_lite_plugin_"  # of the module that a file becomes
SECTIONS = ("components", "runner_configs", "commands", "presets", "models", "vocabularies")


class ComponentIndex:
    """The union of all zoo.yaml files, with the module that registers each name.

    A package that cannot be found, read or imported is named in ``failures`` and breaks
    nothing else.

    Args:
        packages: importable packages with a zoo.yaml; None finds the core, the projects and the
            entry points of the group ``lavis_lite.projects``.
    """

    def __init__(self, packages: Iterable[str] | None = None) -> None:
        self._packages = packages
        self._twice: dict[tuple[str, str], tuple[str, str]] = {}
        self.failures: dict[str, str] = {}

    @functools.cached_property
    def zoos(self) -> dict[str, dict[str, Any]]:
        """The contents of each package's zoo.yaml, by package name."""
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
            for kind, modules in zoo["components"].items():
                for module, listed in modules.items():
                    for name in listed:
                        self._list(table, (kind, name), package + module)
        return table

    def _list(self, table: dict[tuple[str, str], str], key: tuple[str, str], module: str) -> None:
        if key in table:
            if not table[key].startswith("lavis_lite."):  # which comes first is chance
                self._twice[key] = (table[key], module)
            self._fail(module, ConfigError(f"{key[0]} {key[1]!r} already belongs to {table[key]}"))
        else:
            table[key] = module

    def names(self, kind: str) -> list[str]:
        """Return every listed name of a kind."""
        return [name for its_kind, name in self._modules if its_kind == kind]

    def module(self, kind: str, name: str) -> str | None:
        """Return the module that registers a name by a zoo.yaml; None for an unlisted name."""
        return self._modules.get((kind, name))

    def owners(self, kind: str, name: str) -> tuple[str, ...]:
        """Return the two modules of outside packages that both claim a name; else empty.

        Names that the core and the projects list belong to them, even if others claim them.
        """
        return self._twice.get((kind, name), ()) if self._modules else ()

    def load(self, module: str) -> None:
        """Import a module, so that it registers its names; a failure is recorded, not raised."""
        try:
            importlib.import_module(module)
        except Exception as error:
            self._fail(module, error)
        else:
            self.failures.pop(module, None)

    def runner_config(self, runner: str) -> type | None:
        """Import the Config dataclass of a runner that its zoo.yaml names; None if it names none.

        Raises:
            ConfigError: it cannot be imported from there.
        """
        for package, zoo in self.zoos.items():
            if target := zoo["runner_configs"].get(runner):
                module, _, attribute = target.partition(":")
                try:
                    return getattr(importlib.import_module(package + module), attribute)
                except Exception as error:
                    self._fail(package + module, error)
                    raise ConfigError(
                        f"runner {runner!r} cannot be used: no {attribute} from {package + module} "
                        f"({self.failures[package + module]})"
                    ) from error
        return None

    def commands(self) -> dict[str, str]:
        """Return the sub-commands of the projects and plug-ins, with their help."""
        return {
            name: command["help"]
            for zoo in self.zoos.values()
            for name, command in zoo["commands"].items()
        }

    def command(self, name: str) -> Callable[[Sequence[str]], int] | None:
        """Import a sub-command: a function from its words to an exit code; None if there is none.

        Raises:
            ConfigError: it cannot be imported.
        """
        for package, zoo in self.zoos.items():
            if listed := zoo["commands"].get(name):
                module, _, attribute = listed["call"].partition(":")
                try:
                    return getattr(importlib.import_module(package + module), attribute)
                except Exception as error:
                    self._fail(package + module, error)
                    raise ConfigError(
                        f"command {name!r} cannot be used: no {attribute} from {package + module} "
                        f"({self.failures[package + module]})"
                    ) from error
        return None

    def _fail(self, module: str, error: Exception) -> None:
        why = f"{type(error).__name__}: {error}"
        if self.failures.get(module) != why:
            self.failures[module] = why
            logger.warning("%s cannot be used: %s", module, why)


def load_plugin(plugin: str) -> None:
    """Import a researcher's own file or module, so that what it registers is available.

    Args:
        plugin: a path ending in ``.py``, or an importable module. Loaded once per process.

    Raises:
        ConfigError: it does not exist or fails to import; the message names it and the cause.
    """
    try:
        if plugin.endswith(".py"):
            from lavis_lite.io.paths import here  # most runs have no plugin

            _import_file(Path(here(plugin)))
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
    name = f"{FILE_PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
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
            return _checked(OmegaConf.to_container(OmegaConf.load(path)), path)
    raise ConfigError(f"package {package!r} has no zoo.yaml")


def _checked(zoo: Any, path: Path) -> dict[str, Any]:
    """Return a zoo.yaml with all its sections; check that each is a mapping."""
    if not isinstance(zoo, dict):
        raise ConfigError(f"{path}: a mapping is expected")
    for section in SECTIONS:
        if not isinstance(zoo.setdefault(section, {}), dict):
            raise ConfigError(f"{path}: {section}: a mapping is expected")
    for kind, modules in zoo["components"].items():
        if not isinstance(modules, dict) or not all(isinstance(n, list) for n in modules.values()):
            raise ConfigError(f"{path}: components.{kind}: module -> list of names is expected")
    for name, command in zoo["commands"].items():
        if not isinstance(command, dict) or sorted(command) != ["call", "help"]:
            raise ConfigError(f"{path}: commands.{name}: `call` and `help` are expected")
    return zoo
