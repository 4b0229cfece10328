"""Capabilities of a model: what losses, metrics and runners require, as names of attributes.

A capability is a Protocol (``lavis_lite.modules.interfaces``) that stands for its members, or the
name of a single attribute.
"""

from __future__ import annotations

from collections.abc import Iterable

Capability = str | type


def members_of(required: Iterable[Capability]) -> tuple[str, ...]:
    """The names of all attributes that capabilities ask for, each once, in order.

    Args:
        required: Protocols and names, as ``requires`` of a loss or metric lists them.
    """
    names: dict[str, None] = {}
    for capability in required:
        own = [capability] if isinstance(capability, str) else _members(capability)
        names |= dict.fromkeys(own)
    return tuple(names)


def _members(protocol: type) -> list[str]:
    """The members of a Protocol, those of the Protocols that it includes first."""
    if not getattr(protocol, "_is_protocol", False):  # `Protocol` itself, and `object`
        return []
    included = [name for base in protocol.__bases__ for name in _members(base)]
    own = (*vars(protocol).get("__annotations__", {}), *vars(protocol))
    return [*included, *(name for name in own if not name.startswith("_"))]


def has_capability(model: type, name: str) -> bool:
    """Tell whether a model class has ``name`` as a method, property or annotation."""
    return hasattr(model, name) or any(
        name in vars(base).get("__annotations__", {}) for base in model.__mro__
    )


def lacks(model: type, required: Iterable[Capability]) -> list[str]:
    """The attributes that capabilities ask for and instances of a model class do not have."""
    return [name for name in members_of(required) if not has_capability(model, name)]


def missing_from(model: object, required: Iterable[Capability]) -> list[str]:
    """The attributes that capabilities ask for and a model does not have."""
    return [name for name in members_of(required) if not hasattr(model, name)]
