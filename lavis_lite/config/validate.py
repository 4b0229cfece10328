"""Stage 1 of checking a config: keys, types and names, without importing what it names."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Union

from lavis_lite import registry
from lavis_lite.config.annotations import problem_of, seen
from lavis_lite.config.files import KeyPath
from lavis_lite.errors import ConfigError, UnknownName, suggest
from lavis_lite.registry import cards
from lavis_lite.registry.component import NESTED_KINDS, NESTED_MAPPINGS, Component, ModelComponent


class Validator:
    """Turns a plain tree into frozen dataclasses and collects everything that is wrong with it.

    Args:
        typed: the texts of what was set on the command line, which keys of type str take as typed.
    """

    def __init__(self, typed: Mapping[KeyPath, str] | None = None) -> None:
        self.typed = typed or {}
        self.problems: list[tuple[KeyPath, str]] = []

    def report(self, path: KeyPath, problem: str) -> None:
        """Note a problem at a key path."""
        self.problems.append((path, problem))

    def convert(self, value: Any, wanted: Any, path: KeyPath, meta: Any = None) -> Any:
        """``value`` as the type ``wanted``; a problem is noted and None returned in its place."""
        meta = meta or {}
        origin = typing.get_origin(wanted)
        if isinstance(value, str) and value == "???":  # OmegaConf's mark of what is to be given
            return self.report(path, f"missing. {meta.get('doc', '')}".strip())
        if wanted is Any:
            return value
        if origin in (Union, types.UnionType):
            return self._optional(value, wanted, path, meta)
        if origin is list:
            return self._list(value, typing.get_args(wanted)[0], path, meta)
        if origin is dict:
            return self._dict(value, typing.get_args(wanted)[1], path)
        if isinstance(wanted, type) and issubclass(wanted, Component):
            return self._component(value, wanted, path, meta.get("kind"))
        if dataclasses.is_dataclass(wanted):
            return self._dataclass(value, wanted, path)
        return self._plain(value, wanted, path, meta)

    def _dataclass(self, value: Any, wanted: Any, path: KeyPath) -> Any:
        if not isinstance(value, dict):
            return self.report(path, f"a mapping is expected, not {seen(value)}")
        fields = {f.name: f for f in dataclasses.fields(wanted)}
        self._unknown_keys(value, fields, path)
        return wanted(**self._fields(value, fields, typing.get_type_hints(wanted), path))

    def _fields(
        self, value: dict[Any, Any], fields: Any, hints: dict[str, Any], path: KeyPath
    ) -> dict[str, Any]:
        """The given fields of a dataclass, converted; a problem for a required one that is not."""
        given = {}
        for name, field in fields.items():
            if name in value:
                given[name] = self.convert(value[name], hints[name], (*path, name), field.metadata)
            elif _required(field):
                self.report((*path, name), f"missing. {field.metadata.get('doc', '')}".strip())
                given[name] = None
        return given

    def _unknown_keys(self, value: dict[Any, Any], known: Any, path: KeyPath) -> None:
        for key in value:
            if key not in known:
                message = f"unknown key.{suggest(key, known)} Known: {', '.join(known)}"
                self.report((*path, key), message)

    def _component(self, value: Any, wanted: type[Component], path: KeyPath, kind: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            hint = "a mapping with a `name` is expected"
            return self.report(path, f"{hint}, not {seen(value)}")
        own = wanted.config_keys()
        hints = typing.get_type_hints(wanted)
        extra = self._fields(value, own, hints, path)
        args = {k: v for k, v in value.items() if k not in own and k != "name"}
        if kind:
            self.check_name(kind, value["name"], (*path, "name"))
        component = wanted(name=value["name"], args=args, **extra)
        return self._model(component, path) if isinstance(component, ModelComponent) else component

    def check_name(self, kind: str, name: str, path: KeyPath) -> None:
        """Note a problem when nothing of this kind is listed under ``name``."""
        if problem := registry.problem(kind, name):
            self.report(path, problem)

    def _model(self, model: ModelComponent, path: KeyPath) -> ModelComponent | None:
        """The model with the arguments of its type; a problem for a type or part that is not."""
        for key, kind in NESTED_KINDS.items():
            if key in model.args and model.args[key] is not None:
                self._nested(model.args[key], kind, (*path, key))
        for key, kind in NESTED_MAPPINGS.items():
            nested = model.args.get(key) or {}
            if not isinstance(nested, dict):
                self.report(
                    (*path, key), f"a mapping of components is expected, not {seen(nested)}"
                )
                continue
            for name, spec in nested.items():
                if spec is not None:
                    self._nested(spec, kind, (*path, key, name))
        try:
            return cards.whole(model)
        except UnknownName as error:
            if model.name in registry.names("model"):
                self.report((*path, "type"), str(error))
        except ConfigError as error:
            self.report(path, str(error))
        return None

    def _nested(self, value: Any, kind: str, path: KeyPath) -> None:
        if not isinstance(value, dict):
            self.report(path, f"a mapping is expected, not {seen(value)}")
        elif "name" in value:  # without one, its keys refine the preset's component
            self.check_name(kind, str(value["name"]), (*path, "name"))

    def _optional(self, value: Any, wanted: Any, path: KeyPath, meta: Any) -> Any:
        choices = typing.get_args(wanted)
        if value is None and type(None) in choices:
            return None
        (inner,) = [c for c in choices if c is not type(None)]
        return self.convert(value, inner, path, meta)

    def _list(self, value: Any, item: Any, path: KeyPath, meta: Any) -> Any:
        if not isinstance(value, list):
            return self.report(path, f"a list is expected, not {seen(value)}")
        return [self.convert(v, item, (*path, i), meta) for i, v in enumerate(value)]

    def _dict(self, value: Any, item: Any, path: KeyPath) -> Any:
        if not isinstance(value, dict):
            return self.report(path, f"a mapping is expected, not {seen(value)}")
        return {k: self.convert(v, item, (*path, k)) for k, v in value.items()}

    def _plain(self, value: Any, wanted: Any, path: KeyPath, meta: Any) -> Any:
        if wanted is str and not isinstance(value, str) and path in self.typed:
            value = self.typed[path]
        if problem := problem_of(value, wanted):
            return self.report(path, problem)
        if wanted is float and not math.isfinite(value):
            return self.report(path, f"a finite number is expected, not {value}")
        smallest = meta.get("at_least")
        if smallest is not None and value < smallest:
            return self.report(path, f"at least {smallest}, not {value}")
        return float(value) if wanted is float else value


def _required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing
