"""Stage 2 of checking a config: arguments and capabilities, against the named parts.

Imports the named parts and nothing else, and builds nothing.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from lavis_lite import registry
from lavis_lite.config.annotations import problem_of
from lavis_lite.config.files import KeyPath, Source, spell
from lavis_lite.config.fit import (
    lacking,
    lacking_for_arguments,
    misfits,
    with_defaults,
)
from lavis_lite.errors import ConfigError, UnknownName, suggest
from lavis_lite.io.redaction import is_secret
from lavis_lite.registry import Entry
from lavis_lite.registry.capabilities import lacks
from lavis_lite.registry.component import Component, ModelComponent, nested

Problem = tuple[KeyPath, str]


@dataclass(frozen=True)
class Part:
    """A component of a config, looked up once.

    Attributes:
        path: its key path.
        component: the component as the config gives it.
        entry: the registered entry of its name; None if there is none.
        problems: the problems of its name and arguments.
    """

    path: KeyPath
    component: Component
    entry: Entry | None
    problems: Sequence[Problem]

    @property
    def built(self) -> type | None:
        """The class that it builds; None if that is unknown."""
        return self.entry.result if self.entry else None


def components(
    config: object, path: KeyPath = (), kind: str = ""
) -> Iterator[tuple[KeyPath, str, Component]]:
    """Yield every component of a config with its key path and registry kind."""
    if isinstance(config, Component) and kind:
        yield path, kind, config
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            inner = field.metadata.get("kind") or ""
            yield from components(getattr(config, field.name), (*path, field.name), inner)
    elif isinstance(config, list):
        for index, item in enumerate(config):
            yield from components(item, (*path, index), kind)


def bind(config: object, source: Source | None = None) -> None:
    """Check every component's arguments, and that the model can do what its run asks of it.

    Args:
        config: a config from ``load``.
        source: the origin of each key, for the messages.

    Raises:
        ConfigError: all problems in one report, each with its key path.
    """
    typed = source.typed if source else {}
    parts = [_look_up(kind, part, path, typed) for path, kind, part in components(config)]
    metrics = [p for p in parts if p.entry and p.entry.kind.name == "metric"]
    problems: list[Problem] = []
    for part in parts:
        if isinstance(part.component, ModelComponent):
            problems += _model_problems(part, part.component, metrics)
        else:
            problems += part.problems
    if problems:
        say = source.locate if source else lambda path, problem: f"{spell(path)}: {problem}"
        raise ConfigError("\n".join(say(path, problem) for path, problem in problems))


def _look_up(
    kind: str, component: Component, path: KeyPath, typed: Mapping[KeyPath, str] | None = None
) -> Part:
    """The part that a component names, with what is wrong with its arguments."""
    try:
        entry = registry.entry(kind, component.name)
        taken = entry.parameters  # a wildcard may know only now that it has no such name
    except (UnknownName, ConfigError) as error:
        return Part(path, component, None, [(path, str(error))])
    _take_as_typed(component, taken, path, typed or {})
    misspelt = _misspelt(component, taken)
    problems: list[Problem] = [
        ((*path, key), f"unknown key.{near}") for key, near in misspelt.items()
    ]
    given = {key: value for key, value in component.args.items() if key not in misspelt}
    problems += [
        (path, f"{entry.name!r} {problem}")
        for problem in entry.argument_problems(given, entry.runtime)
    ]
    shared = entry.shared_arguments
    for key, value in component.args.items():
        wrong = problem_of(value, taken[key].annotation) if key in taken else None
        if wrong is not None:
            problems.append(((*path, key), "another type is expected" if is_secret(key) else wrong))
        elif key in shared:
            problems += [((*path, key, *inside), text) for inside, text in shared[key].check(value)]
    return Part(path, component, entry, problems)


def _take_as_typed(
    component: Component,
    taken: Mapping[str, inspect.Parameter],
    path: KeyPath,
    typed: Mapping[KeyPath, str],
) -> None:
    """Give an argument that takes a text the text that was typed, where YAML read another type."""
    for key in component.args.keys() & taken.keys():
        text, value, wanted = typed.get((*path, key)), component.args[key], taken[key].annotation
        if text is None or isinstance(value, str) or not problem_of(value, wanted):
            continue
        if not problem_of(text, wanted):
            for args in (component.args, component.written):
                cast(dict[str, Any], args)[key] = text


def _misspelt(component: Component, taken: Mapping[str, inspect.Parameter]) -> dict[str, str]:
    """Return the arguments that are spelt almost like a key beside them, with a hint each."""
    own = set(component.config_keys())
    near = {key: suggest(key, own) for key in component.args if key not in taken}
    return {key: hint for key, hint in near.items() if hint and not suggest(key, taken)}


def _model_problems(
    part: Part, model: ModelComponent, metrics: Sequence[Part]
) -> Iterator[Problem]:
    """Yield the problems of a model, of its parts and of what losses and metrics ask of it."""
    inner = [*_inner_parts(model, part.path)]
    problems = [
        *part.problems,
        *(problem for one in inner for problem in _inner_problems(one, part)),
    ]
    yield from problems
    if part.entry and part.built and not problems:
        whole = with_defaults(part.entry, model.args)
        for problem in part.entry.check({"name": model.name, **whole}, whole):
            yield part.path, problem
    if part.built:
        losses = [one for one in inner if one.entry and one.entry.kind.name == "loss"]
        yield from _capability_problems(part, model, [*losses, *metrics])


def _inner_parts(model: ModelComponent, path: KeyPath) -> Iterator[Part]:
    """Yield the components among a model's arguments."""
    for where, kind, spec in nested(model.args):
        if "name" in spec:
            args = {k: v for k, v in spec.items() if k != "name"}
            yield _look_up(kind, Component(spec["name"], args), (*path, *where))
        else:
            problem = ((*path, *where), "a component needs a `name`")
            yield Part(problem[0], Component(""), None, [problem])


def _inner_problems(part: Part, model: Part) -> Iterator[Problem]:
    yield from part.problems
    if part.entry and model.entry and model.built and not part.problems:
        around = with_defaults(model.entry, model.component.args)
        for problem in misfits(part.entry, part.component.spec, around):
            yield part.path, problem


def _capability_problems(
    part: Part, model: ModelComponent, wishes: Sequence[Part]
) -> Iterator[Problem]:
    """Yield capabilities that losses, metrics or the model's role require and its class lacks."""
    built = part.built
    assert built is not None
    if missing := lacks(built, model.requires):
        yield (
            part.path,
            f"a {spell(part.path)} needs {', '.join(missing)}, "
            f"which model {model.name!r} ({built.__name__}) lacks",
        )
    for wish in wishes:
        if wish.entry is None or wish.built is None:
            continue
        if missing := lacks(built, getattr(wish.built, "requires", ())):
            kind = wish.entry.kind.name
            yield wish.path, lacking(kind, wish.entry.name, missing, model.name, built)
        else:
            asked = lacking_for_arguments(wish.entry, wish.component.args, model.name, built)
            for problem in asked:
                yield wish.path, problem
