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

    def convert(self, value: object, annotation: Any, path: KeyPath, meta: Any = None) -> Any:
        """Convert a value to its annotation; note a problem and return None if it does not fit."""
        meta = meta or {}
        origin = typing.get_origin(annotation)
        if isinstance(value, str) and value == "???":  # OmegaConf's mark of a required value
            return self.report(path, f"missing. {meta.get('doc', '')}".strip())
        if annotation is Any:
            return value
        if origin in (Union, types.UnionType):
            return self._optional(value, annotation, path, meta)
        if origin is list:
            return self._list(value, typing.get_args(annotation)[0], path, meta)
        if origin is dict:
            return self._dict(value, typing.get_args(annotation)[1], path)
        if isinstance(annotation, type) and issubclass(annotation, Component):
            return self._component(value, annotation, path, meta.get("kind"))
        if dataclasses.is_dataclass(annotation):
            return self._dataclass(value, annotation, path, meta)
        return self._plain(value, annotation, path, meta)

    def _dataclass(self, value: object, annotation: Any, path: KeyPath, meta: Any) -> Any:
        if not isinstance(value, dict):
            return self.report(path, f"a mapping is expected, not {seen(value)}")
        fields = {f.name: f for f in dataclasses.fields(annotation)}
        self._unknown_keys(value, fields, path)
        required = [name for name, field in fields.items() if _required(field)]
        if required and not set(required) & set(value) and (near := meta.get("near")):
            # An override of a name that is not there looks like a new entry.
            return self.report(path, f"unknown name.{near}")
        return annotation(**self._fields(value, fields, typing.get_type_hints(annotation), path))

    def _fields(
        self,
        value: dict[Any, Any],
        fields: Mapping[str, dataclasses.Field[Any]],
        hints: dict[str, Any],
        path: KeyPath,
    ) -> dict[str, Any]:
        """Convert the given fields of a dataclass; note a problem for a missing required one."""
        given = {}
        for name, field in fields.items():
            if name in value:
                given[name] = self.convert(value[name], hints[name], (*path, name), field.metadata)
            elif _required(field):
                self.report((*path, name), f"missing. {field.metadata.get('doc', '')}".strip())
                given[name] = None
        return given

    def _unknown_keys(
        self, value: dict[Any, Any], known: Mapping[str, object], path: KeyPath
    ) -> None:
        for key in value:
            if key not in known:
                message = f"unknown key.{suggest(key, known)} Known: {', '.join(known)}"
                self.report((*path, key), message)

    def _component(
        self, value: object, annotation: type[Component], path: KeyPath, kind: str | None
    ) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            hint = "a mapping with a `name` is expected"
            return self.report(path, f"{hint}, not {seen(value)}")
        fields = annotation.config_keys()
        hints = typing.get_type_hints(annotation)
        extra = self._fields(value, fields, hints, path)
        args = {k: v for k, v in value.items() if k not in fields and k != "name"}
        if kind:
            self.check_name(kind, value["name"], (*path, "name"))
        component = annotation(name=value["name"], args=args, **extra)
        return self._model(component, path) if isinstance(component, ModelComponent) else component

    def check_name(self, kind: str, name: str, path: KeyPath) -> None:
        """Note a problem if nothing of this kind is listed under ``name``."""
        if problem := registry.problem(kind, name):
            self.report(path, problem)

    def _model(self, model: ModelComponent, path: KeyPath) -> ModelComponent | None:
        """Return the model with the arguments of its type; note an unknown type or part."""
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

    def _nested(self, value: object, kind: str, path: KeyPath) -> None:
        if not isinstance(value, dict):
            self.report(path, f"a mapping is expected, not {seen(value)}")
        elif "name" in value:  # without one, its keys refine the preset's component
            self.check_name(kind, str(value["name"]), (*path, "name"))

    def _optional(self, value: object, annotation: Any, path: KeyPath, meta: Any) -> Any:
        choices = typing.get_args(annotation)
        if value is None and type(None) in choices:
            return None
        # Beside null one annotation is left, or two: a thing, and a list of such things.
        inner, *others = [c for c in choices if c is not type(None)]
        for other in others:
            if (typing.get_origin(other) is list) == isinstance(value, list):
                inner = other
        return self.convert(value, inner, path, meta)

    def _list(self, value: object, item: Any, path: KeyPath, meta: Any) -> Any:
        if not isinstance(value, list):
            return self.report(path, f"a list is expected, not {seen(value)}")
        return [self.convert(v, item, (*path, i), meta) for i, v in enumerate(value)]

    def _dict(self, value: object, item: Any, path: KeyPath) -> Any:
        if not isinstance(value, dict):
            return self.report(path, f"a mapping is expected, not {seen(value)}")
        near = {k: suggest(str(k), (other for other in value if other != k)) for k in value}
        return {k: self.convert(v, item, (*path, k), {"near": near[k]}) for k, v in value.items()}

    def _plain(self, value: Any, annotation: Any, path: KeyPath, meta: Any) -> Any:
        if annotation is str and not isinstance(value, str) and path in self.typed:
            value = self.typed[path]
        if problem := problem_of(value, annotation):
            return self.report(path, problem)
        if annotation is float and not math.isfinite(value):
            return self.report(path, f"a finite number is expected, not {value}")
        smallest = meta.get("at_least")
        if smallest is not None and value < smallest:
            return self.report(path, f"at least {smallest}, not {value}")
        return float(value) if annotation is float else value


def _required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing
