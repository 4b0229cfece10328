"""Names for swappable parts: register one, look one up, build one from a config.

A registered thing is a class or a builder function; its keyword arguments are exactly the keys
that a config may give it. Which module registers which name stands in ``zoo.yaml`` files (of the
core, of each project, of installed packages), so listing imports nothing and looking a name up
imports one module.

    @registry.register("vision_encoder", "acme_patchnet")
    class PatchNet(nn.Module): ...

    registry.build("vision_encoder", {"name": "acme_patchnet", "depth": 2}, image_size=64)
"""

from __future__ import annotations

import fnmatch
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from fvcore.common.registry import Registry as NameMap

from lavis_lite.errors import ConfigError, UnknownName, suggest
from lavis_lite.registry.contracts import KINDS, Contract
from lavis_lite.registry.plugins import FILE_PREFIX, ComponentIndex

T = TypeVar("T", bound=Callable[..., Any])
# A component as configs write it and the arguments of the model around it -> what is wrong there.
Check = Callable[[Mapping[str, Any], Mapping[str, Any]], Iterable[str]]


class Kind(NameMap):
    """The names of one kind; its documentation is what a registered thing must fulfil."""

    def __init__(self, name: str, contract: Contract) -> None:
        super().__init__(name)
        self.__doc__ = contract.text
        self.runtime = contract.runtime

    def add(self, name: str, entry: Entry, owner: str | None) -> None:
        """Take ``entry`` under ``name``; a taken name is an error that says who has it.

        Args:
            name: what configs write.
            entry: what it means.
            owner: the module that the index gives the name to, imported or not; None: nobody.
        """
        holder = self.get(name).where if name in self else owner
        if holder is None or (name in self and self.get(name).replaceable_by(entry)):
            self._obj_map[name] = entry
            return
        raise ConfigError(
            f"{self._name} {name!r} is already registered at {holder}; "
            f"{entry.where} needs another name, such as {entry.own_name(name)!r}"
        )


@dataclass(frozen=True)
class Entry:
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

    def replaceable_by(self, other: Entry) -> bool:
        """Whether ``other`` is the same definition run again: in a notebook, or by a reload."""
        mine, its = self.builder, other.builder
        if mine.__qualname__ != its.__qualname__:
            return False
        return mine.__module__ == its.__module__ == "__main__" or self.where == other.where


class Found(NamedTuple):
    """A looked-up entry and, when a wildcard matched, what stood in the place of its ``*``."""

    entry: Entry
    rest: str | None


class Registry:
    """All kinds together with the index that says which module registers which name."""

    def __init__(
        self, contracts: Mapping[str, Contract] = KINDS, index: ComponentIndex | None = None
    ) -> None:
        self.kinds = {name: Kind(name, contract) for name, contract in contracts.items()}
        self.index = index or ComponentIndex(packages=())

    def register(
        self,
        kind: str,
        name: str,
        *,
        expand: Callable[[str], list[str]] | None = None,
        arguments: Callable[[str], dict[str, inspect.Parameter]] | None = None,
        check: Check | None = None,
    ) -> Callable[[T], T]:
        """A decorator that makes a class or builder function available as ``name``.

        Args:
            kind: one of ``registry.kinds()``.
            name: what configs write. ``"prefix/*"`` registers a wildcard: its builder gets what
                stands for the ``*`` as its first positional argument.
            expand: for a wildcard, the full names behind a pattern (``"prefix/a*"``).
            arguments: for a wildcard, the arguments that the thing behind a name takes.
            check: called with the component as a config writes it and with the arguments of the
                model around it, before anything is built; what it yields is reported.

        Raises:
            ConfigError: the name is taken; the message says where.
        """
        family = self._kind(kind)
        owner = self.index.module(kind, name)
        registers = sys._getframe(1).f_globals.get("__name__")

        def decorate(builder: T) -> T:
            elsewhere = None if owner == registers else owner
            family.add(name, Entry(builder, expand, arguments, check), elsewhere)
            return builder

        return decorate

    def get(self, kind: str, name: str) -> Callable[..., Any]:
        """The class or builder registered as ``name``; its module is imported when needed."""
        entry, rest = self._find(kind, name)
        return entry.builder if rest is None else functools.partial(entry.builder, rest)

    def build(self, kind: str, spec: Mapping[str, Any], **runtime: Any) -> Any:
        """Build ``{"name": ..., **arguments}``.

        Args:
            kind: one of ``registry.kinds()``.
            spec: the component as configs write it.
            runtime: what only the running program knows (``image_size``, ``model``...). Passed
                where the builder takes it; an argument of the same name in ``spec`` wins.

        Raises:
            ConfigError: no name; an argument that the builder does not take, or one that it misses.
        """
        name, given = spec.get("name"), {k: v for k, v in spec.items() if k != "name"}
        if not isinstance(name, str):
            raise ConfigError(f"a {kind} needs a `name`: {dict(spec)!r}")
        accepted = self.arguments(kind, name, with_runtime=True)
        if problems := argument_problems(f"{kind} {name!r}", given, accepted, runtime):
            raise ConfigError("\n".join(problems))
        passed = {k: v for k, v in runtime.items() if k in accepted}
        return self.get(kind, name)(**{**passed, **given})

    def names(self, kind: str, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell pattern; imports nothing unless it reaches a wildcard."""
        family = self._kind(kind)
        listed = {*dict(family), *self.index.names(kind)}
        matches = set(fnmatch.filter(listed, pattern))
        for wildcard in (w for w in listed if w.endswith("/*")):
            if pattern != "*" and pattern.startswith(wildcard[:-1]):
                entry = self._load(kind, wildcard)
                matches -= {wildcard}
                matches |= set(entry.expand(pattern)) if entry.expand else set()
        return sorted(matches)

    def arguments(
        self, kind: str, name: str, *, with_runtime: bool = False
    ) -> dict[str, inspect.Parameter]:
        """The arguments that ``name`` takes from a config: their names, types and defaults."""
        entry, rest = self._find(kind, name)
        if rest is not None and entry.arguments is not None:
            return entry.arguments(rest)
        parameters = dict(_signature(entry.builder).parameters)
        if rest is not None:
            parameters.pop(next(iter(parameters)))
        if not with_runtime:
            parameters = {k: p for k, p in parameters.items() if k not in self.kinds[kind].runtime}
        return parameters

    def misfits(self, kind: str, spec: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
        """What the check of a component finds wrong with it in its model; nothing without one."""
        entry = self._find(kind, spec["name"]).entry
        return [] if entry.check is None else list(entry.check(spec, model))

    def result(self, kind: str, name: str) -> type | None:
        """The class that ``name`` builds: itself, or its builder's return annotation."""
        builder = self._find(kind, name).entry.builder
        if inspect.isclass(builder):
            return builder
        returned = _signature(builder).return_annotation
        return returned if inspect.isclass(returned) and returned is not inspect._empty else None

    def problem(self, kind: str, name: str) -> str | None:
        """Why ``name`` cannot be looked up as far as the listings tell (no import), or None."""
        if self.index.owners(kind, name):
            return self._ambiguous(kind, name)
        listed = self.names(kind)
        wildcards = tuple(w[:-1] for w in listed if w.endswith("/*"))
        if name in listed or (wildcards and name.startswith(wildcards)):
            return None
        return str(self._unknown(kind, name))

    def where(self, kind: str, name: str) -> str:
        """``file:line`` of the definition of ``name``."""
        return self._find(kind, name).entry.where

    def _kind(self, kind: str) -> Kind:
        if kind not in self.kinds:
            raise UnknownName(
                f"no kind {kind!r}.{suggest(kind, self.kinds)} Known: {', '.join(self.kinds)}"
            )
        return self.kinds[kind]

    def _load(self, kind: str, name: str) -> Entry:
        """The entry of an exact name, importing the module that the index gives for it."""
        family = self._kind(kind)
        if name not in family and self.index.owners(kind, name):
            raise ConfigError(self._ambiguous(kind, name))
        module = self.index.module(kind, name)
        if name not in family and module is not None:
            self.index.load(module)
        if name in family:
            return family.get(name)
        if module is None:
            raise self._unknown(kind, name)
        why = self.index.failures.get(module)
        reason = f"failed to import ({why})" if why else "does not register it"
        raise UnknownName(f"{kind} {name!r} cannot be used: its module {module} {reason}")

    def _find(self, kind: str, name: str) -> Found:
        family = self._kind(kind)
        if name in family or name in self.index.names(kind):
            return Found(self._load(kind, name), None)
        for wildcard in (w for w in self.names(kind) if w.endswith("/*")):
            if name.startswith(wildcard[:-1]):
                return Found(self._load(kind, wildcard), name[len(wildcard) - 1 :])
        raise self._unknown(kind, name)

    def _ambiguous(self, kind: str, name: str) -> str:
        first, second = self.index.owners(kind, name)
        return (
            f"{kind} {name!r} exists twice: in {first} and in {second}. Each name has one owner: "
            f"uninstall one of them, or let it list {second.partition('.')[0]}_{name!s}"
        )

    def _unknown(self, kind: str, name: str) -> UnknownName:
        known = self.names(kind)
        spelled = "".join(
            f" From {wildcard} it would be {wildcard[:-1] + name!r}."
            for wildcard in known
            if wildcard.endswith("/*")
        )
        lines = [
            f"no {kind} named {name!r}.{suggest(name, known) or spelled}",
            f"  known: {', '.join(known) or 'none'}",
        ]
        if self.index.failures:
            failed = "; ".join(f"{m} ({why})" for m, why in self.index.failures.items())
            lines.append(f"  plug-ins that failed to import: {failed}")
        return UnknownName("\n".join(lines))


def argument_problems(
    what: str,
    given: Mapping[str, Any],
    accepted: Mapping[str, inspect.Parameter],
    supplied: Iterable[str] = (),
) -> list[str]:
    """What is wrong with ``given`` as arguments: names not taken, and names that are missing.

    Args:
        what: what the arguments are for, as the messages call it.
        given: the arguments.
        accepted: what may be given.
        supplied: what comes from elsewhere.
    """
    takes_any = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    unknown = [] if takes_any else [key for key in given if key not in accepted]
    missing = [
        key
        for key, parameter in accepted.items()
        if _required(parameter) and key not in given and key not in supplied
    ]
    takes = ", ".join(key for key in accepted if key not in supplied) or "no arguments"
    return [
        f"{what} takes no {key!r}.{suggest(key, accepted)} It takes: {takes}" for key in unknown
    ] + [f"{what} needs {key!r}" for key in missing]


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


everything = Registry(index=ComponentIndex())
register = everything.register
get = everything.get
build = everything.build
names = everything.names
arguments = everything.arguments
result = everything.result
misfits = everything.misfits
problem = everything.problem
where = everything.where
index = everything.index


def runtime(kind: str) -> tuple[str, ...]:
    """The arguments that the running program supplies to builders of a kind."""
    return everything.kinds[kind].runtime


def kinds() -> dict[str, str]:
    """Each kind with its contract."""
    return {name: kind.__doc__ or "" for name, kind in everything.kinds.items()}
