"""The metric `facts` on captions whose facts can be counted by hand."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from torch import nn

from lavis_lite.errors import ConfigError
from lavis_lite.metrics.facts import Facts, score_facts


def facts_of(text: str) -> frozenset[str] | None:
    """ "red dog, blue cat" states colour and kind of a first and a second thing."""
    if not re.fullmatch(r"\w+ \w+, \w+ \w+", text):
        return None
    things = zip(["first", "second"], text.split(", "), strict=True)
    return frozenset(
        f"{name}.{part}={word}"
        for name, thing in things
        for part, word in zip(["colour", "kind"], thing.split(), strict=True)
    )


def test_shares_are_those_of_captions_and_of_facts() -> None:
    truth = ["red dog, blue cat"]
    rows = [
        {"caption": caption, "references": references}
        for caption, references in [
            ("red dog, blue cat", ["cannot be read", *truth]),
            ("red dog, pink cat", truth),
            ("blue cat, red dog", truth),
            ("IMG_2041", truth),
            ("red dog, blue cat", ["no facts here"]),
        ]
    ]
    figures, scored, *_ = score_facts(rows, facts_of)
    assert figures == {"exact": 0.25, "parsed": 0.75, "colour": 3 / 8, "kind": 4 / 8}
    assert len(scored) == 4  # the last one's reference cannot be read
    assert scored[1]["wrong"] == ["second.colour=pink"]
    assert scored[1]["missing"] == ["second.colour=blue"]
    assert [row["exact"] for row in scored] == [True, False, False, False]
    assert (scored[3]["parsed"], scored[3]["wrong"], len(scored[3]["missing"])) == (False, [], 4)


def test_data_that_knows_no_facts_is_refused() -> None:
    class Captioner(nn.Module):
        def generate(self, samples: dict) -> list[str]:
            return []

    data = SimpleNamespace(dataset=SimpleNamespace(name="photos"))
    with pytest.raises(ConfigError, match="'photos' cannot tell the facts of a text"):
        Facts().evaluate(Captioner(), data, None)


def test_references_without_facts_are_an_error() -> None:
    with pytest.raises(ConfigError, match="could not read the facts of any reference"):
        score_facts([{"caption": "red dog, blue cat", "references": ["?"]}], facts_of)
