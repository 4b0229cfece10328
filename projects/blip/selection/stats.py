"""Counts of a block that add up to those of a selection, and what is shown of its texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from lavis_lite.projects.blip.selection import moments
from lavis_lite.projects.blip.selection.cuts import WHOLE
from lavis_lite.projects.blip.selection.decide import CHOSEN, UNSOUND, Block, Reduced
from lavis_lite.projects.blip.selection.pool import FIELD
from lavis_lite.projects.blip.selection.precision import Judged
from lavis_lite.projects.blip.selection.rules import Rule

if TYPE_CHECKING:
    from lavis_lite.projects.blip.selection.plan import Plan

NUM_BARS = 100
EXAMPLES = 4  # on each side of a cut
_SPREAD = 4.0  # standard deviations of a fused score that are drawn
Stats = dict[str, Any]


def count(
    plan: Plan,
    block: Block,
    fate: numpy.ndarray,
    failing: Sequence[numpy.ndarray],
    chosen: numpy.ndarray,
    reduced: Sequence[Reduced],
) -> Stats:
    """Return the counts of one block.

    Args:
        plan: of the selection.
        block: of the pool.
        fate, failing: see `applied`.
        chosen: (T,) bool, the texts that the selection has.
        reduced: what the passes found for each rule.
    """
    image = block.numbers("image_row")
    found: Stats = {
        "images": int(image.max(initial=-1)) + 1,
        "images_with_a_text": len(numpy.unique(image[chosen])),
        "texts": _by_origin(block, numpy.ones(len(fate), bool)),
        "unsound": _by_origin(block, fate == UNSOUND),
        "rules": [_by_origin(block, fate == number) for number in range(len(failing))],
        "passed": _by_origin(block, fate == CHOSEN),
        "chosen": _by_origin(block, chosen),
        "sources": _sources(block, chosen),
        "histograms": {name: _bars(plan, block, name, chosen) for name in plan.scores},
        "examples": [
            _examples(block, rule, limit_of(rule, own), chosen)
            for rule, own in zip(plan.rules, reduced, strict=True)
        ],
        "judged": _judged(plan, block, chosen),
        "truth": _truth(plan, block, chosen),
    }
    matrix = numpy.array(failing).reshape(len(failing), len(fate)).astype(numpy.int64)
    found["together"] = (matrix @ matrix.T).tolist()
    alone = matrix.sum(0) == 1
    found["alone"] = (matrix * alone).sum(1).tolist()
    return found


def added(parts: Iterable[Stats]) -> Stats:
    """Return the counts of all blocks."""
    total: Stats = {}
    for part in parts:
        if not total:
            total = part
            continue
        for name, value in part.items():
            if name == "examples":
                total[name] = [
                    {side: sorted([*a[side], *b[side]], key=_nearest)[:EXAMPLES] for side in a}
                    for a, b in zip(total[name], value, strict=True)
                ]
            elif name == "judged":
                total[name] += value
            else:
                total[name] = _sum(total[name], value)
    return total


def _sum(left: Any, right: Any) -> Any:
    if isinstance(left, dict):
        names = {**left, **right}
        return {
            n: _sum(left[n], right[n]) if n in left and n in right else left.get(n, right.get(n))
            for n in names
        }
    if isinstance(left, list):
        return [_sum(a, b) for a, b in zip(left, right, strict=True)]
    return left + right


def _by_origin(block: Block, texts: numpy.ndarray) -> dict[str, int]:
    web = int((texts & block.of("web")).sum())
    return {"web": web, "synthetic": int(texts.sum()) - web}


def _sources(block: Block, chosen: numpy.ndarray) -> dict[str, dict[str, int]]:
    codes = block.column("source").dictionary_encode()
    places = codes.indices.to_numpy(zero_copy_only=False)
    texts = numpy.bincount(places, minlength=len(codes.dictionary))
    kept = numpy.bincount(places[chosen], minlength=len(codes.dictionary))
    names = codes.dictionary.to_pylist()
    return {
        name: {"texts": int(a), "chosen": int(b)}
        for name, a, b in zip(names, texts, kept, strict=True)
    }


def score_range(plan: Plan, name: str, stats: dict[str, moments.Moments]) -> tuple[float, float]:
    """Return the range of a score that histograms show."""
    if name in plan.fusions:
        fusion = plan.fusions[name]
        total = sum(abs(weight) for weight in fusion.weights.values())
        if fusion.how == "z":
            return -_SPREAD * total, _SPREAD * total
        return sum(min(0.0, w) for w in fusion.weights.values()), total
    own = stats[name]
    if own.number == 0:
        return 0.0, 1.0
    return (own.low, own.high) if own.high > own.low else (own.low - 0.5, own.low + 0.5)


def _bars(plan: Plan, block: Block, name: str, chosen: numpy.ndarray) -> dict[str, list[int]]:
    return {
        "all": _histogram(plan, block, name, block.sound),
        "chosen": _histogram(plan, block, name, chosen),
    }


def _histogram(plan: Plan, block: Block, name: str, texts: numpy.ndarray) -> list[int]:
    low, high = score_range(plan, name, block.stats)
    values = block.score(name)[texts]
    values = numpy.clip(values[~numpy.isnan(values)], low, high)
    return numpy.histogram(values, NUM_BARS, (low, high))[0].tolist()


def limit_of(rule: Rule, found: Reduced) -> float | None:
    """Return the one score at which a rule cuts; None where it has none, or several."""
    if rule.kind == "fraction":
        own = (found.cuts or {}).get(WHOLE)
        return None if own is None else own.score
    if rule.kind == "precision":
        return found.limit
    return rule.min if rule.min is not None else rule.max


def _examples(
    block: Block, rule: Rule, limit: float | None, chosen: numpy.ndarray
) -> dict[str, list[dict[str, Any]]]:
    """Return the texts next to a cut, on either side."""
    if limit is None or rule.score is None:
        return {"above": [], "below": []}
    score = block.score(rule.score)
    with numpy.errstate(invalid="ignore"):
        meant = block.of(rule.of) & block.sound & ~numpy.isnan(score)
        sides = {"above": meant & (score >= limit), "below": meant & (score < limit)}
    found = {}
    for side, mine in sides.items():
        places = numpy.flatnonzero(mine)
        away = numpy.abs(score[places] - limit)
        if len(away) > EXAMPLES:  # of equally near ones the first, which a partition does not say
            farthest = numpy.partition(away, EXAMPLES - 1)[EXAMPLES - 1]
            places, away = places[away <= farthest], away[away <= farthest]
        near = numpy.argsort(away, kind="stable")[:EXAMPLES]
        found[side] = [
            {
                "distance": abs(float(score[row]) - limit),
                "score": float(score[row]),
                "chosen": bool(chosen[row]),
                **{
                    n: block.column(n)[int(row)].as_py()
                    for n in ("key", "shard", "index", "place", "source", "text")
                },
            }
            for row in places[near]
        ]
    return found


def _nearest(example: dict[str, Any]) -> tuple[float, int, int, int]:
    return example["distance"], example["shard"], example["index"], example["place"]


def labelled_rows(plan: Plan, block: Block) -> list[tuple[int, str, bool]]:
    """Return row, ``key/place`` and verdict of the texts of a block that people judged."""
    import pyarrow as pa
    import pyarrow.compute as compute

    if not plan.known:
        return []
    keys = pa.array(sorted({key for key, _ in plan.known}), pa.string())
    places = block.numbers("place")
    found = []
    candidates = compute.is_in(block.column("key"), value_set=keys)
    for row in numpy.flatnonzero(candidates.to_numpy(zero_copy_only=False)):
        key, place = block.column("key")[int(row)].as_py(), int(places[row])
        if (fits := plan.known.get((key, place))) is not None:
            found.append((int(row), f"{key}/{place}", fits))
    return found


def truth_rows(plan: Plan, block: Block) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the rows of a block of which the source tells the truth, and whether they are right.

    These are web texts.
    """
    import pyarrow as pa
    import pyarrow.compute as compute

    data = plan.config.data
    if data.label is None or not data.right:
        return numpy.empty(0, int), numpy.empty(0, bool)
    values = pa.array(data.right, pa.string())
    right = compute.is_in(block.column(f"{FIELD}{data.label}"), value_set=values)
    rows = numpy.flatnonzero(block.of("web"))
    return rows, right.to_numpy(zero_copy_only=False)[rows]


def judged_of(plan: Plan, block: Block, alive: numpy.ndarray, name: str) -> Judged:
    """Return the judged texts of a block that come to a rule, with their scores.

    Args:
        plan: of the selection.
        block: of the pool.
        alive: (T,) bool, the texts that come to the rule and have the score.
        name: of the score.
    """
    score = block.score(name)
    shard, index = block.numbers("shard"), block.numbers("index")
    sampled = alive & moments.sampled_images(shard, index, plan.pool.num_images)
    rows = labelled_rows(plan, block)
    if plan.known:
        own = [(row, fits) for row, _, fits in rows if alive[row]]
        places = numpy.array([row for row, _ in own], int)
        fits = numpy.array([fits for _, fits in own], bool)
    else:
        places, fits = truth_rows(plan, block)
        some = sampled[places]
        places, fits = places[some], fits[some]
    return Judged(score[places], fits, score[sampled], [text for _, text, _ in rows])


def _judged(plan: Plan, block: Block, chosen: numpy.ndarray) -> list[dict[str, Any]]:
    return [
        {
            "text": text,
            "fits": fits,
            "chosen": bool(chosen[row]),
            "scores": {
                name: None if numpy.isnan(value := block.score(name)[row]) else float(value)
                for name in plan.scores
            },
        }
        for row, text, fits in labelled_rows(plan, block)
    ]


def _truth(plan: Plan, block: Block, chosen: numpy.ndarray) -> Stats:
    rows, right = truth_rows(plan, block)
    if plan.config.data.label is None or not plan.config.data.right:
        return {}
    kept = chosen[rows]
    everything = numpy.zeros(len(chosen), bool)
    fits, wrong = everything.copy(), everything.copy()
    fits[rows[right]], wrong[rows[~right]] = True, True
    return {
        "right": int(right.sum()),
        "right_chosen": int((right & kept).sum()),
        "wrong": int((~right).sum()),
        "wrong_chosen": int((~right & kept).sum()),
        "histograms": {
            name: {
                "right": _histogram(plan, block, name, fits),
                "wrong": _histogram(plan, block, name, wrong),
            }
            for name in plan.scores
        },
    }
