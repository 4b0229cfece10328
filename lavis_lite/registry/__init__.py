"""The registry: names -> builders, the packages that list them, and the cards of models.

registry.py          register, look up, build, list
entry.py             what a look-up gives: builder, arguments, class, check
shared_arguments.py  arguments that several builders have, stated once
contracts.py         the contract of each kind
plugins.py           where registered names come from
component.py         a name with its arguments, and how two of them merge
cards.py             model cards: types, presets, released weights
weight_cards.py      cards of released weight files
lavis_names.py       names of LAVIS's models that are not here
"""

from lavis_lite.registry.entry import Entry, Kind
from lavis_lite.registry.plugins import ComponentIndex
from lavis_lite.registry.registry import (
    Registry,
    build,
    entry,
    everything,
    get,
    index,
    kinds,
    names,
    problem,
    register,
)

__all__ = [
    "ComponentIndex",
    "Entry",
    "Kind",
    "Registry",
    "build",
    "entry",
    "everything",
    "get",
    "index",
    "kinds",
    "names",
    "problem",
    "register",
]
