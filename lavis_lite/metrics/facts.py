"""The share of correct facts in captions, for data that knows its facts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lavis_lite import registry
from lavis_lite.errors import ConfigError
from lavis_lite.metrics.columns import OTHERS, Chief, Column
from lavis_lite.metrics.generate import check_generation, count_described, generate_captions
from lavis_lite.modules.interfaces import Context, Evaluation, EvaluationData, Generates

FactsOf = Callable[[str], frozenset[str] | None]


@registry.register("metric", "facts")
class Facts:
    """Share of captions that state every fact of their image, and share of facts by attribute.

    The dataset reads the texts: ``dataset.facts(text)`` is a set like ``{"first.colour=red"}``, or
    None for what it cannot read. Figures are in [0, 1]: ``exact`` (all facts right), ``parsed``
    (could be read at all), and for each attribute (``colour``: what follows the last dot) the share
    of true facts that were stated. A caption that cannot be read states none.

    Args:
        generate: arguments of the model's ``generate``; empty are the model's defaults.
    """

    requires = (Generates,)
    title = "Facts in captions, shares"
    counted = "images"
    columns = (
        Column("exact", "all right", digits=3),
        Column("parsed", "readable", digits=3),
        Column(OTHERS, digits=3),  # an attribute of the facts
    )
    chief = Chief("exact", "captions with every fact right", "%", factor=100)

    def __init__(self, generate: dict[str, Any] | None = None) -> None:
        self.generate = generate or {}

    def check(self, model: Generates) -> None:
        """Refuse options that the model's ``generate`` does not take (ConfigError)."""
        check_generation(model, self.generate)

    def evaluate(self, model: Generates, data: EvaluationData, runner: Context) -> Evaluation:
        """Figures in [0, 1], and per image the facts stated and true."""
        self.check(model)
        facts_of: FactsOf | None = getattr(data.dataset, "facts", None)
        if facts_of is None:
            name = getattr(data.dataset, "name", type(data.dataset).__name__)
            raise ConfigError(f"facts: the dataset {name!r} cannot tell the facts of a text")
        rows = generate_captions(model, data, runner, self.generate)
        found = score_facts(rows, facts_of)
        counted = count_described(data, rows, found.predictions, "no readable reference")
        return replace(found, counts={"images": counted})


def score_facts(rows: list[dict[str, Any]], facts_of: FactsOf) -> Evaluation:
    """Compare captions with the first of their references that can be read.

    Args:
        rows: with ``caption`` and ``references``; those without a readable reference are left out.
        facts_of: the facts that a text states; None where it cannot be read.
    """
    scored: list[dict[str, Any]] = []
    right: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        true = next((facts for text in row["references"] if (facts := facts_of(text))), None)
        if true is None:
            continue
        said = facts_of(row["caption"])
        for fact in true:
            right[_attribute(fact)].append(said is not None and fact in said)
        scored.append(
            {
                **row,
                "parsed": said is not None,
                "exact": said == true,
                "wrong": sorted(said - true) if said else [],
                "missing": sorted(true - (said or frozenset())),
            }
        )
    if not scored:
        raise ConfigError("facts: the dataset could not read the facts of any reference")
    figures = {name: _share([row[name] for row in scored]) for name in ("exact", "parsed")}
    return Evaluation({**figures, **{name: _share(right[name]) for name in sorted(right)}}, scored)


def _attribute(fact: str) -> str:
    return fact.split("=")[0].rsplit(".", 1)[-1]


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)
