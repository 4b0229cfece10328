"""What these tests register is gone after each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lavis_lite import registry


@pytest.fixture(autouse=True)
def leave_no_names() -> Iterator[None]:
    families = registry.everything.kinds.values()
    before = [dict(family) for family in families]
    yield
    for family, names in zip(families, before, strict=True):
        for name in set(dict(family)) - set(names):
            # A listed name stays: its module is imported once and would not register it again.
            if registry.index.module(family.name, name) is None:
                del family._obj_map[name]
