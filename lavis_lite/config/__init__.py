"""Configs: one YAML file is one run.

``load`` reads a file with its ``_base_`` files and overrides and checks keys, types and names
(stage 1); ``bind`` checks arguments and capabilities against the named parts (stage 2). Each
reports all it finds at once. What travels on is a frozen dataclass of ``schema``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_lite import registry
from lavis_lite.config.bind import bind as bind
from lavis_lite.config.files import KeyPath, Source, find, items, key_paths, read
from lavis_lite.config.merge import from_dotted, merge, parse_overrides
from lavis_lite.config.schema import Component
from lavis_lite.config.validate import Validator, spell
from lavis_lite.errors import ConfigError
from lavis_lite.plugins import load_plugin

_RESOLVER = re.compile(r"\$\{\s*([\w.]+)\s*:")


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    values: dict[str, Any] | None = None,
    relative_to: Path | None = None,
) -> Any:
    """A config file as the dataclass of its runner.

    Args:
        path: a file, or the name of a config that comes with lavis_lite (``blip/caption_coco``).
        overrides: ``key=value`` in dotted keys, ``data.train[0].split=human``.
        values: overrides that are no text, by dotted key; ``overrides`` win over them.
        relative_to: folder in which a relative ``path`` is looked up first.

    Raises:
        ConfigError: every problem in one report, with file and key path.
    """
    source = read(find(str(path), relative_to))
    for file, tree in (
        ("in `set`", from_dotted(values or {})),
        ("on the command line", parse_overrides(overrides)),
    ):
        origin = {key_path: file for key_path in key_paths(tree)}
        source = Source(merge(source.tree, tree), source.origin | origin)
    return validate(_locate_stages(_resolve(source, str(path)), str(path)), str(path))


def validate(source: Source, file: str) -> Any:
    """Stage 1 for an already merged tree: the dataclass of its runner."""
    tree = source.tree
    for plugin in tree.get("plugins") or []:
        load_plugin(_plugin_path(str(plugin), source.origin.get(("plugins",), file)))
    validator = Validator()
    schema = _schema(tree, validator)
    config = validator.convert(tree, schema, ()) if schema else None
    if validator.problems:
        lines = [
            f"{_file(source, path, file)}: {spell(path)}: {p}" for path, p in validator.problems
        ]
        raise ConfigError("\n".join(lines))
    return config


def to_dict(config: Any) -> Any:
    """A config dataclass as plain dicts and lists, in the shape that a file has."""
    if isinstance(config, Component):
        own = {
            f.name: to_dict(getattr(config, f.name))
            for f in dataclasses.fields(config)
            if f.name not in ("name", "args")
        }
        return {"name": config.name, **own, **to_dict(dict(config.args))}
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {k: to_dict(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(v) for v in config]
    return config


def to_yaml(config: Any) -> str:
    """A config dataclass as YAML that ``load`` reads back."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))


def _schema(tree: dict[str, Any], validator: Validator) -> type | None:
    runner = tree.get("runner")
    name = runner.get("name") if isinstance(runner, dict) else None
    if not isinstance(name, str):
        known = ", ".join(registry.names("runner"))
        validator.report(
            ("runner",), f"say which runner: `runner: {{name: train}}`. Known: {known}"
        )
        return None
    if problem := registry.problem("runner", name):
        validator.report(("runner", "name"), problem)
        return None
    schema = registry.index.runner_config(name) or getattr(
        registry.get("runner", name), "Config", None
    )
    if schema is None:
        validator.report(("runner", "name"), f"runner {name!r} names no Config dataclass")
    return schema


def _resolve(source: Source, file: str) -> Source:
    """Resolve ``${a.b}`` and ``${stage:name}``; nothing else, above all not the environment."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _refuse_resolvers(source, file)
    if not OmegaConf.has_resolver("stage"):
        OmegaConf.register_new_resolver("stage", _stage_folder)
    try:
        tree = OmegaConf.to_container(OmegaConf.create(source.tree), resolve=True)
    except (OmegaConfBaseException, ConfigError, RecursionError, ValueError) as error:
        raise ConfigError(f"{file}: {str(error).strip().splitlines()[0]}") from None
    return Source(tree, source.origin)  # type: ignore[arg-type]


def _refuse_resolvers(source: Source, file: str) -> None:
    def look(tree: Any, path: KeyPath) -> None:
        if isinstance(tree, str):
            for resolver in _RESOLVER.findall(tree):
                if resolver != "stage":
                    where = f"{_file(source, path, file)}: {spell(path)}"
                    raise ConfigError(
                        f"{where}: ${{{resolver}:...}} is not resolved in configs; "
                        "pass the value on the command line as key=value"
                    )
        for key, value in items(tree):
            look(value, (*path, key))

    look(source.tree, ())


def _locate_stages(source: Source, file: str) -> Source:
    """Full paths for the configs of stages that lie beside the file that names them."""
    stages = source.tree.get("stages")
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        cfg = stage.get("cfg") if isinstance(stage, dict) else None
        beside = Path(_file(source, ("stages", name, "cfg"), file)).parent / str(cfg)
        if cfg and beside.is_file():
            stage["cfg"] = str(beside.resolve())
    return source


def _stage_folder(name: str, *, _root_: Any) -> str:
    if name not in (_root_.get("stages") or {}):
        raise ConfigError(f"no stage {name!r}; stages: {', '.join(_root_.get('stages') or {})}")
    return f"{_root_.run.output_dir}/{name}"


def _file(source: Source, path: KeyPath, default: str) -> str:
    """The file (or command line) that set the longest known part of a key path."""
    for length in range(len(path), 0, -1):
        if path[:length] in source.origin:
            return source.origin[path[:length]]
    return default


def _plugin_path(plugin: str, file: str) -> str:
    """A plugin file is looked up beside the config that names it, then as given."""
    beside = Path(file).parent / plugin
    return str(beside) if plugin.endswith(".py") and beside.is_file() else plugin
