"""Names of evaluations: the metric, with its dataset and split if it is not unique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lavis_lite.config.schema import Evaluator


def evaluator_names(evaluators: Iterable[Evaluator]) -> list[str]:
    """Return a distinct, readable name for each evaluator, in order.

    It is the metric's name; if two share it, with the dataset, then also with the split; else with
    a number: ``caption``, ``retrieval_scenes_test``, ``retrieval_2``.
    """
    evaluators = list(evaluators)
    metrics = Counter(e.name for e in evaluators)
    names = []
    for evaluator in evaluators:
        same = [e for e in evaluators if e.name == evaluator.name]
        if metrics[evaluator.name] == 1:
            names.append(evaluator.name)
            continue
        for spell in (_with_dataset, _with_split):
            if len({spell(e) for e in same}) == len(same):
                names.append(spell(evaluator))
                break
        else:
            number = 1 + sum(name.startswith(evaluator.name) for name in names)
            names.append(evaluator.name if number == 1 else f"{evaluator.name}_{number}")
    return [name.replace("/", "-") for name in names]


def _with_dataset(evaluator: Evaluator) -> str:
    return f"{evaluator.name}_{evaluator.data.name}"


def _with_split(evaluator: Evaluator) -> str:
    split = evaluator.data.args.get("split")
    return _with_dataset(evaluator) + (f"_{split}" if split else "")
