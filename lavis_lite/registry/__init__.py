"""The registry: names -> builders, the packages that list them, and the cards of models.

registry.py      kinds, entries, register, look up, build
contracts.py     the contract of each kind
plugins.py       where registered names come from
component.py     a name with its arguments, and how two of them merge
cards.py         model cards: types, presets, released weights
weight_cards.py  cards of released weight files
"""

from lavis_lite.registry.plugins import ComponentIndex
from lavis_lite.registry.registry import (
    Entry,
    Kind,
    Registry,
    argument_problems,
    arguments,
    build,
    everything,
    get,
    index,
    kinds,
    misfits,
    names,
    problem,
    register,
    result,
    runtime,
    where,
)

__all__ = [
    "ComponentIndex",
    "Entry",
    "Kind",
    "Registry",
    "argument_problems",
    "arguments",
    "build",
    "everything",
    "get",
    "index",
    "kinds",
    "misfits",
    "names",
    "problem",
    "register",
    "result",
    "runtime",
    "where",
]
