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
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lavis_lite.errors import ConfigError, UnknownName, suggest
from lavis_lite.registry.contracts import KINDS, Contract
from lavis_lite.registry.entry import Check, Definition, Entry, Kind
from lavis_lite.registry.lavis_names import remark
from lavis_lite.registry.plugins import ComponentIndex

T = TypeVar("T", bound=Callable[..., Any])


class Registry:
    """All kinds, with the index of the modules that register each name."""

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
        """Return a decorator that makes a class or builder function available as ``name``.

        Args:
            kind: one of ``registry.kinds()``.
            name: the name in configs. ``"prefix/*"`` registers a wildcard: its builder gets the
                part for the ``*`` as its first positional argument.
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
            family.add(name, Definition(builder, expand, arguments, check), elsewhere)
            return builder

        return decorate

    def get(self, kind: str, name: str) -> Callable[..., Any]:
        """Return the class or builder registered as ``name``; import its module if needed."""
        return self.entry(kind, name).builder

    def entry(self, kind: str, name: str) -> Entry:
        """Look up what is registered as ``name``; its module is imported when needed.

        Raises:
            UnknownName: nothing is, or its module does not import; the message lists the nearest.
            ConfigError: two packages claim the name.
        """
        family = self._kind(kind)
        if name in family or name in self.index.names(kind):
            return Entry(family, name, self._load(kind, name))
        for wildcard in (w for w in self.names(kind) if w.endswith("/*")):
            if name.startswith(wildcard[:-1]):
                return Entry(family, name, self._load(kind, wildcard), name[len(wildcard) - 1 :])
        raise self._unknown(kind, name)

    def build(self, kind: str, spec: Mapping[str, Any], **runtime: object) -> Any:
        """Build ``{"name": ..., **arguments}``.

        Args:
            kind: one of ``registry.kinds()``.
            spec: the component as configs write it.
            runtime: values of the running program (``image_size``, ``model``...). Each is passed
                if the builder takes it; an argument of the same name in ``spec`` wins.

        Raises:
            ConfigError: no name; an argument that the builder does not take, or one that it misses.
        """
        if not isinstance(spec, Mapping):
            raise ConfigError(
                f"a {kind}: {type(spec).__name__} {spec!r:.60}; a mapping with a `name` is expected"
            )
        name, given = spec.get("name"), {k: v for k, v in spec.items() if k != "name"}
        if not isinstance(name, str):
            raise ConfigError(f"a {kind} needs a `name`: {dict(spec)!r}")
        entry = self.entry(kind, name)
        if problems := entry.argument_problems(given, runtime):
            raise ConfigError("\n".join(f"{kind} {name!r} {problem}" for problem in problems))
        passed = {k: v for k, v in runtime.items() if k in entry.parameters}
        return entry.builder(**{**passed, **given})

    def names(self, kind: str, pattern: str = "*") -> list[str]:
        """Return sorted names that match a shell pattern; import only for a wildcard."""
        if not isinstance(pattern, str):
            raise ConfigError(
                f"pattern: {pattern!r:.60}; a text with wildcards is expected, such as 'my_*'"
            )
        family = self._kind(kind)
        listed = {*dict(family), *self.index.names(kind)}
        matches = set(fnmatch.filter(listed, pattern))
        for wildcard in (w for w in listed if w.endswith("/*")):
            if pattern != "*" and pattern.startswith(wildcard[:-1]):
                expand = self._load(kind, wildcard).expand
                matches -= {wildcard}
                matches |= set(expand(pattern)) if expand else set()
        return sorted(matches)

    def problem(self, kind: str, name: str) -> str | None:
        """Say why ``name`` cannot be looked up, by the listings alone (no import), or None."""
        if self.index.owners(kind, name):
            return self._ambiguous(kind, name)
        listed = self.names(kind)
        wildcards = tuple(w[:-1] for w in listed if w.endswith("/*"))
        if name in listed or (wildcards and name.startswith(wildcards)):
            return None
        return str(self._unknown(kind, name))

    def _kind(self, kind: str) -> Kind:
        if kind not in self.kinds:
            raise UnknownName(
                f"no kind {kind!r}.{suggest(kind, self.kinds)} Known: {', '.join(self.kinds)}"
            )
        return self.kinds[kind]

    def _load(self, kind: str, name: str) -> Definition:
        """Return the definition of an exact name; import the module that the index names."""
        family = self._kind(kind)
        if name not in family and self.index.owners(kind, name):
            raise ConfigError(self._ambiguous(kind, name))
        module = self.index.module(kind, name)
        if name not in family and module is not None:
            self.index.load(module)
        if name in family:
            return family.get(name).definition
        if module is None:
            raise self._unknown(kind, name)
        why = self.index.failures.get(module)
        reason = f"failed to import ({why})" if why else "does not register it"
        raise UnknownName(f"{kind} {name!r} cannot be used: its module {module} {reason}")

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
        of_lavis = remark(name) if kind == "model" else ""
        lines = [
            f"no {kind} named {name!r}.{of_lavis or suggest(name, known) or spelled}",
            f"  known: {', '.join(known) or 'none'}",
        ]
        if self.index.failures:
            failed = "; ".join(f"{m} ({why})" for m, why in self.index.failures.items())
            lines.append(f"  plug-ins that failed to import: {failed}")
        return UnknownName("\n".join(lines))


everything = Registry(index=ComponentIndex())
register = everything.register
get = everything.get
entry = everything.entry
build = everything.build
names = everything.names
problem = everything.problem
index = everything.index


def kinds() -> dict[str, str]:
    """Return each kind with its contract."""
    return {name: kind.__doc__ or "" for name, kind in everything.kinds.items()}
