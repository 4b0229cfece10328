"""From files and overrides to a checked config: read, merge, resolve, validate, bind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_lite import registry
from lavis_lite.config.bind import bind
from lavis_lite.config.files import KeyPath, Source, beside, find, read, said_by, spell, texts
from lavis_lite.config.lavis import refuse_lavis
from lavis_lite.config.overrides import from_dotted, parse_overrides, typed_values
from lavis_lite.config.resolve import resolve
from lavis_lite.config.validate import Validator
from lavis_lite.errors import ConfigError, UnknownName
from lavis_lite.io.redaction import REDACTED
from lavis_lite.registry.plugins import load_plugin


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    values: dict[str, Any] | None = None,
) -> Any:
    """Load a config file as the dataclass of its runner, with every check that needs no import.

    Its models have all their arguments, including those of their types.

    Args:
        path: a file, or the name of a config that comes with lavis_lite (``blip/caption_coco``).
        overrides: ``key=value`` in dotted keys, ``data.train[0].split=human``.
        values: overrides that are not text, by dotted key; ``overrides`` win over them.

    Raises:
        ConfigError: every problem in one report, with file and key path.
    """
    return _checked(_read(path, overrides, values))


def load_and_bind(
    path: str | Path, overrides: Sequence[str] = (), *, values: dict[str, Any] | None = None
) -> Any:
    """Call ``load``, then ``bind`` with the files of the keys; use it before running a config."""
    source = _read(path, overrides, values)
    _refuse_redacted(source)
    config = _checked(source)
    bind(config, source)
    return config


def _read(path: str | Path, overrides: Sequence[str], values: dict[str, Any] | None) -> Source:
    """Read the merged and resolved tree, before any check of its keys."""
    source = read(find(str(path)))
    for laid_on in (
        said_by("in `set`", from_dotted(values or {})),
        said_by("on the command line", parse_overrides(overrides))._replace(
            typed=typed_values(overrides)
        ),
    ):
        try:
            source = laid_on.over(source)
        except ConfigError as error:
            raise ConfigError(f"{laid_on.name}: {error}") from None
    return resolve(source._replace(name=str(path)))


def _refuse_redacted(source: Source) -> None:
    """Refuse a config with redacted secrets, as a run wrote it down: they must be given again."""
    problem = "was taken out when it was written; give it on the command line: "
    problems = [
        source.locate(path, problem + _override_of(path))
        for path, text in texts(source.tree)
        if text == REDACTED
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _override_of(path: KeyPath) -> str:
    """Return how an override begins that sets a key; one of a stage's `set` has dots in it."""
    for place, part in enumerate(path):
        if isinstance(part, str) and "." in part:
            return f"{spell(path[:place])}={{{part}: ...}}"
    return f"{spell(path)}=..."


def _checked(source: Source) -> Any:
    """Stage 1 for a merged tree: the dataclass of its runner."""
    refuse_lavis(source.tree, source.name)
    validator = Validator(source.typed)
    tree = _located(source)
    _load_plugins(tree.get("plugins"), validator)
    schema = _schema(tree, validator)
    config = validator.convert(tree, schema, ()) if schema else None
    if validator.problems:
        raise ConfigError("\n".join(source.locate(*problem) for problem in validator.problems))
    return config


def _located(source: Source) -> dict[str, Any]:
    """Return the tree with full paths for plug-ins and configs beside the naming config."""
    tree = dict(source.tree)
    if "cfg" in tree:
        tree["cfg"] = beside(tree["cfg"], source.origin.get(("cfg",)))
    if isinstance(plugins := tree.get("plugins"), list):
        tree["plugins"] = [beside(p, source.origin.get(("plugins",))) for p in plugins]
    if isinstance(stages := tree.get("stages"), dict):
        tree["stages"] = {
            name: {**stage, "cfg": beside(stage["cfg"], source.origin.get(("stages", name, "cfg")))}
            if isinstance(stage, dict) and "cfg" in stage
            else stage
            for name, stage in stages.items()
        }
    return tree


def _load_plugins(plugins: object, validator: Validator) -> None:
    for index, plugin in enumerate(plugins if isinstance(plugins, list) else ()):
        if isinstance(plugin, str):  # anything else is reported with the other wrong types
            try:
                load_plugin(plugin)
            except ConfigError as error:
                validator.report(("plugins", index), str(error))


def _schema(tree: dict[str, Any], validator: Validator) -> type | None:
    runner = tree.get("runner")
    name = runner.get("name") if isinstance(runner, dict) else None
    if not isinstance(name, str):
        known = ", ".join(registry.names("runner"))
        validator.report(
            ("runner",), f"say which runner: `runner: {{name: train}}`. Known: {known}"
        )
        return None
    try:
        schema = registry.index.runner_config(name)
        schema = schema or getattr(registry.get("runner", name), "Config", None)
    except (UnknownName, ConfigError) as error:
        validator.report(("runner", "name"), str(error))
        return None
    if schema is None:
        validator.report(("runner", "name"), f"runner {name!r} names no Config dataclass")
    return schema
