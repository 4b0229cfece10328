"""What docs/capfilt_experiment.rst says of the recorded ablation, checked against the record."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev

import pytest

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "ablation_scenes.json"
MEASURES = ("zero-shot", "retrieval", "captions")
RETRIEVAL = MEASURES[:2]
EVERY_SEED = [
    *(("C+F", "none", measure) for measure in MEASURES),
    *(("F", "none", measure) for measure in MEASURES),
    *(("C", "none", measure) for measure in MEASURES),
    *(("C+F", "C", measure) for measure in RETRIEVAL),
    *(("F", "C", measure) for measure in RETRIEVAL),
    *(("F", "human only", measure) for measure in RETRIEVAL),
    *(("C+F", "human only", measure) for measure in RETRIEVAL),
    ("human only", "none", "zero-shot"),
    ("human only", "none", "captions"),
    ("C+F, beam", "C+F", "captions"),
    *(("C+F", "none, longer", measure) for measure in RETRIEVAL),
]


@pytest.fixture(scope="module")
def record():
    return json.loads(FILE.read_text(encoding="utf-8"))


def seeds(record, arm, measure):
    return record["arms"][arm]["values"][measure]["seeds"]


def test_every_arm_of_the_tables_has_three_seeds(record) -> None:
    arms = {"C+F, shared"} | {arm for above, below, _ in EVERY_SEED for arm in (above, below)}
    for arm in arms | {"random subset", "none, longer"}:
        for measure in MEASURES:
            assert len(seeds(record, arm, measure)) == 3, (arm, measure)


@pytest.mark.parametrize(("above", "below", "measure"), EVERY_SEED, ids="-".join)
def test_an_order_holds_in_every_seed(record, above, below, measure) -> None:
    high, low = seeds(record, above, measure), seeds(record, below, measure)
    assert all(high[seed] > low[seed] for seed in high)


def test_the_orders_that_are_not_reproduced(record) -> None:
    def mean(arm, measure):
        return record["arms"][arm]["values"][measure]["mean"]

    assert abs(mean("C+F", "zero-shot") - mean("F", "zero-shot")) < 1
    for measure in MEASURES:
        shared, apart = (seeds(record, arm, measure) for arm in ("C+F, shared", "C+F"))
        assert len({shared[seed] > apart[seed] for seed in apart}) == 2, measure
    assert all(mean("F", measure) > mean("C+F", measure) for measure in ("retrieval", "captions"))


def test_the_filter_sees_wrong_web_texts_and_not_wrong_captions(record) -> None:
    values = record["arms"]["C+F"]["values"]
    assert min(values["filter precision"]["seeds"].values()) > 90
    written, kept = values["synthetic right"]["seeds"], values["kept synthetic right"]["seeds"]
    assert all(kept[seed] - written[seed] < 5 for seed in kept)
    assert values["kept synthetic right"]["mean"] < 50


def test_what_is_said_of_growth() -> None:
    growth = json.loads(FILE.with_name("growth_scenes.json").read_text(encoding="utf-8"))

    def gains(size):
        pair = (seeds(growth, f"{arm}, {size}", "zero-shot") for arm in ("C+F", "none"))
        return [high - low for high, low in zip(*(arm.values() for arm in pair), strict=True)]

    little, much = gains("web 1500"), gains("web 6000")
    wide = gains("width 128, web 6000")
    assert abs(mean(little) - mean(much)) < min(stdev(little), stdev(much))
    assert mean(wide) < mean(much)
    assert len({a < b for a, b in zip(wide, much, strict=True)}) == 2
    right = [
        growth["arms"][f"C+F, {size}"]["values"]["synthetic right"]["mean"]
        for size in ("width 128, web 6000", "web 6000")
    ]
    assert right[0] > right[1]
