"""A registered name: its definition, the slot that keeps it, and the entry that a look-up gives."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fvcore.common.registry import Registry as NameMap

from lavis_lite.errors import ConfigError, suggest
from lavis_lite.registry.contracts import Contract
from lavis_lite.registry.plugins import FILE_PREFIX
from lavis_lite.registry.shared_arguments import Argument, shared, spread

# A component as configs write it and the arguments of the model around it -> what is wrong there.
Check = Callable[[Mapping[str, Any], Mapping[str, Any]], Iterable[str]]


@dataclass(frozen=True)
class Definition:
    """A registered builder, its check, and the names and arguments behind a wildcard."""

    builder: Callable[..., Any]
    expand: Callable[[str], list[str]] | None = None
    arguments: Callable[[str], dict[str, inspect.Parameter]] | None = None
    check: Check | None = None

    @property
    def where(self) -> str:
        """``file:line`` of the definition, or the module where that is unknown."""
        try:
            file = inspect.getsourcefile(self.builder)
            return f"{file}:{inspect.getsourcelines(self.builder)[1]}"
        except (TypeError, OSError):
            return f"{self.builder.__module__}.{self.builder.__qualname__}"

    def own_name(self, name: str) -> str:
        """``name`` with that of the package or file that the builder comes from before it."""
        package = self.builder.__module__.partition(".")[0]
        if package.startswith(FILE_PREFIX):
            package = package.removeprefix(FILE_PREFIX).rpartition("_")[0]
        return f"{package.strip('_') or 'my'}_{name}"

    def replaceable_by(self, other: Definition) -> bool:
        """Tell if ``other`` is the same definition run again: in a notebook, or by a reload."""
        mine, its = self.builder, other.builder
        if mine.__qualname__ != its.__qualname__:
            return False
        return mine.__module__ == its.__module__ == "__main__" or self.where == other.where


class Slot:
    """The place of a name in fvcore's registry, which goes by ``__name__`` and keeps what it has.

    The definition in a slot can be replaced.
    """

    def __init__(self, name: str, definition: Definition) -> None:
        self.__name__ = name
        self.definition = definition


class Kind(NameMap):
    """The names of one kind; its documentation is what a registered thing must fulfil."""

    def __init__(self, name: str, contract: Contract) -> None:
        super().__init__(name)
        self.__doc__ = contract.text
        self.name = name
        self.runtime = contract.runtime

    def add(self, name: str, definition: Definition, owner: str | None) -> None:
        """Take ``definition`` under ``name``; a taken name is an error that says who has it.

        Args:
            name: what configs write.
            definition: what it means.
            owner: the module that the index gives the name to, imported or not; None: nobody.
        """
        slot: Slot | None = self.get(name) if name in self else None
        if slot is not None and slot.definition.replaceable_by(definition):
            slot.definition = definition
            return
        holder = owner if slot is None else slot.definition.where
        if holder is not None:
            raise ConfigError(
                f"{self.name} {name!r} is already registered at {holder}; "
                f"{definition.where} needs another name, such as {definition.own_name(name)!r}"
            )
        self.register(Slot(name, definition))


@dataclass(frozen=True)
class Entry:
    """A name that was looked up: its builder and what can be asked before anything is built.

    Attributes:
        kind: whose documentation is the contract.
        name: as it was asked for.
        definition: what is registered.
        rest: what stands in the place of a wildcard's ``*``; None for an exact name.
    """

    kind: Kind
    name: str
    definition: Definition
    rest: str | None = None

    @property
    def builder(self) -> Callable[..., Any]:
        """The registered class or function; of a wildcard, with the rest of the name given."""
        if self.rest is None:
            return self.definition.builder
        return functools.partial(self.definition.builder, self.rest)

    @functools.cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """All that the builder takes, from a config and from the running program."""
        if self.rest is not None and self.definition.arguments is not None:
            return self.definition.arguments(self.rest)
        found = {p.name: p for p in spread(_signature(self.definition.builder).parameters.values())}
        if self.rest is not None:
            found.pop(next(iter(found)))
        return found

    @property
    def shared_arguments(self) -> dict[str, Argument]:
        """The arguments that the builder shares with others of its kind, with what they mean."""
        parameters = _signature(self.definition.builder).parameters.values()
        return {key: argument for p in parameters for key, argument in shared(p).items()}

    @property
    def arguments(self) -> dict[str, inspect.Parameter]:
        """The arguments that a config may give: their names, types and defaults."""
        return {k: p for k, p in self.parameters.items() if k not in self.runtime}

    @property
    def runtime(self) -> tuple[str, ...]:
        """The arguments that the running program supplies to builders of this kind."""
        return self.kind.runtime

    @property
    def result(self) -> type | None:
        """The class that is built: the registered one, or the function's return annotation."""
        builder = self.definition.builder
        if inspect.isclass(builder):
            return builder
        returned = _signature(builder).return_annotation
        return returned if inspect.isclass(returned) and returned is not inspect._empty else None

    @property
    def where(self) -> str:
        """``file:line`` of the definition."""
        return self.definition.where

    def argument_problems(
        self, given: Mapping[str, Any], supplied: Iterable[str] = ()
    ) -> list[str]:
        """Return what is wrong with arguments: ``takes no 'depht'. ...``, ``needs 'depth'``.

        Args:
            given: what a config says.
            supplied: names of what the running program gives.
        """
        accepted = self.parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
        unknown = [] if takes_any else [key for key in given if key not in accepted]
        missing = [
            key
            for key, parameter in accepted.items()
            if _required(parameter) and key not in given and key not in supplied
        ]
        takes = ", ".join(key for key in accepted if key not in supplied) or "no arguments"
        return [
            f"takes no {key!r}.{suggest(key, accepted)} It takes: {takes}" for key in unknown
        ] + [f"needs {key!r}" for key in missing]

    def check(self, spec: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
        """Return what the registered check finds wrong with a component in its model.

        Args:
            spec: the component as a config writes it.
            model: the arguments of the model around it.
        """
        check = self.definition.check
        return [] if check is None else list(check(spec, model))


def _required(parameter: inspect.Parameter) -> bool:
    named = (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return parameter.default is parameter.empty and parameter.kind in named


@functools.cache
def _signature(builder: Callable[..., Any]) -> inspect.Signature:
    # torch's own constructor looks as if it took anything; it takes nothing.
    torch_nn = sys.modules.get("torch.nn")
    if torch_nn and getattr(builder, "__init__", None) is torch_nn.Module.__init__:
        return inspect.Signature()
    try:
        return inspect.signature(builder, eval_str=True)
    except (NameError, TypeError):  # an annotation that exists for type checkers only
        return inspect.signature(builder)
