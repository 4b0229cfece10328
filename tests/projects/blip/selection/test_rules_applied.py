"""Every decision, beside the same one made in plain Python over all texts at once."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from lavis_lite.projects.blip.selection.reading import Selection

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")


def texts_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The texts that rules begin with: neither empty nor there before at their image."""
    found = []
    for record in records:
        seen = set()
        every = [record["web_text"], *record["synthetic"]]
        for place, text in enumerate(every):
            if text.strip() and text not in seen:
                scores = {
                    name: [own["web"], *own["synthetic"]][place]
                    for name, own in record["text_scores"].items()
                }
                one = {"place": place, "text": text, "index": record["index"], "record": record}
                one["source"] = "web" if place == 0 else record["sources"][place - 1]
                found.append({**one, **scores, "nsfw": record["image_scores"]["nsfw"]})
            seen.add(text)
    return found


def chosen(folder) -> list[tuple[int, int]]:
    return [(row["index"], row["place"]) for row in Selection(folder).rows()]


def places(texts) -> list[tuple[int, int]]:
    return sorted((one["index"], one["place"]) for one in texts)


def best_first(texts, score):
    """Best first; of equally good ones the first of the pool."""
    return sorted(texts, key=lambda t: (-(t[score] if t[score] is not None else -9), *order(t)))


def order(text):
    return text["index"], text["place"]


def test_a_threshold_keeps_what_is_as_good_and_drops_what_has_no_score(select, some):
    expected = [t for t in texts_of(some) if t["sieve"] is not None and t["sieve"] >= 0.3]
    assert chosen(select([{"score": "sieve", "min": 0.3}])) == places(expected)
    kept = [t for t in texts_of(some) if t["sieve"] is None or t["sieve"] >= 0.3]
    rule = {"score": "sieve", "min": 0.3, "missing": "keep"}
    assert chosen(select([rule], "keeping")) == places(kept)


def test_rules_come_in_order_and_each_is_of_the_texts_that_it_names(select, some):
    rules = [
        {"score": "nsfw", "max": 0.8},
        {"score": "itm", "min": 0.4, "of": "web"},
        {"score": "clip", "min": 0.2, "max": 0.9, "of": "synthetic"},
    ]
    left = [t for t in texts_of(some) if t["nsfw"] <= 0.8]
    counts = [len(texts_of(some)) - len(left)]
    after = [t for t in left if t["place"] or t["itm"] >= 0.4]
    counts.append(len(left) - len(after))
    last = [t for t in after if not t["place"] or 0.2 <= t["clip"] <= 0.9]
    counts.append(len(after) - len(last))
    folder = select(rules)
    assert chosen(folder) == places(last)
    found = Selection(folder).manifest["counts"]
    assert [sum(own.values()) for own in found["rules"]] == counts


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("score", ["itm", "clip"])
def test_a_share_is_of_the_whole_pool_exactly_ties_included(select, some, fraction, score):
    texts = texts_of(some)
    wanted = int(fraction * len(texts) + 0.5)
    folder = select([{"score": score, "fraction": fraction}])
    assert chosen(folder) == places(best_first(texts, score)[:wanted])


def test_a_share_comes_after_the_rules_before_it(select, some):
    left = [t for t in texts_of(some) if t["itm"] >= 0.5]
    wanted = int(0.4 * len(left) + 0.5)
    rules = [{"score": "itm", "min": 0.5}, {"score": "clip", "fraction": 0.4}]
    assert chosen(select(rules)) == places(best_first(left, "clip")[:wanted])


@pytest.mark.parametrize("by", ["source", "kind"])
def test_a_share_by_stratum_is_of_each(select, some, by):
    texts, expected = texts_of(some), []
    value = (lambda t: t["source"]) if by == "source" else lambda t: t["record"]["fields"]["kind"]
    for stratum in {value(t) for t in texts}:
        mine = [t for t in texts if value(t) == stratum]
        expected += best_first(mine, "clip")[: int(0.25 * len(mine) + 0.5)]
    rule = {"score": "clip", "fraction": 0.25, "by": by}
    assert chosen(select([rule])) == places(expected)


def test_the_verdict_of_the_runs_filter_is_a_rule(select, some):
    expected = [t for t in texts_of(some) if t["itm"] > 0.5]
    assert chosen(select([{"kept": True}])) == places(expected)


@pytest.mark.parametrize("number", [1, 2])
def test_the_best_texts_of_an_image(select, some, number):
    expected = []
    for index in range(len(some)):
        mine = [t for t in texts_of(some) if t["index"] == index]
        expected += best_first(mine, "itm")[:number]
    keep = {"best": number, "by": "itm"}
    assert chosen(select([], keep=keep)) == places(expected)


def test_synthetic_texts_only_where_the_webs_failed(select, some):
    passed = [t for t in texts_of(some) if t["itm"] >= 0.5]
    web = {t["index"] for t in passed if t["place"] == 0}
    expected = [t for t in passed if t["place"] == 0 or t["index"] not in web]
    rules = [{"score": "itm", "min": 0.5}]
    found = chosen(select(rules, keep="synthetic_if_web_failed"))
    assert found == places(expected)
    best = {"synthetic_if_web_failed": 1, "by": "itm"}
    one = chosen(select(rules, "one", keep=best))
    assert len(one) == len({index for index, _ in one}) == len({index for index, _ in found})


@pytest.mark.parametrize("how", ["z", "rank"])
def test_fused_scores_are_weighted_sums_of_normalised_ones(select, some, how):
    texts = texts_of(some)
    total = numpy.zeros(len(texts))
    for name, weight in (("itm", 0.7), ("clip", 0.3)):
        values = numpy.array([t[name] for t in texts])
        if how == "z":
            total += weight * (values - values.mean()) / values.std()
        else:
            below = (values[:, None] > values).sum(1) + (values[:, None] >= values).sum(1)
            total += weight * below / (2 * len(values))
    expected = [t for t, value in zip(texts, total, strict=True) if value >= 0.4]
    scores = {"mix": {"fuse": how, "weights": {"itm": 0.7, "clip": 0.3}}}
    folder = select([{"score": "mix", "min": 0.4}], scores=scores)
    assert chosen(folder) == places(expected)
    said = {(r["index"], r["place"]): r["score_mix"] for r in Selection(folder).rows()}
    truth = {order(t): v for t, v in zip(texts, total, strict=True)}
    assert all(value == pytest.approx(truth[place]) for place, value in said.items())


def test_of_equal_images_the_one_with_the_best_text_stays(select, some):
    best: dict[str, dict] = {}
    for text in best_first(texts_of(some), "itm"):
        best.setdefault(text["record"]["image_scores"]["sha256"], text)
    images = {text["index"] for text in best.values()}
    expected = [t for t in texts_of(some) if t["index"] in images]
    assert len(images) < len(some)
    assert chosen(select([{"duplicates": "images", "best": "itm"}])) == places(expected)


@pytest.mark.parametrize("within", [0, 2])
def test_of_nearly_equal_images_all_but_the_best_go(select, some, within):
    ranked = []
    for text in best_first(texts_of(some), "clip"):
        if text["index"] not in [t["index"] for t in ranked]:
            ranked.append(text)
    images = set()
    for number, text in enumerate(ranked):  # dropped if anything better is near
        own = int(text["record"]["image_scores"]["phash"], 16)
        better = [int(t["record"]["image_scores"]["phash"], 16) for t in ranked[:number]]
        if not any((own ^ other).bit_count() <= within for other in better):
            images.add(text["index"])
    expected = [t for t in texts_of(some) if t["index"] in images]
    assert len(images) < 30
    rule = {"duplicates": "images", "within": within, "best": "clip"}
    assert chosen(select([rule])) == places(expected)


def test_of_equal_texts_the_best_stays_or_so_many(select, some):
    for most, rule in ((1, {"duplicates": "texts"}), (3, {"most_per_text": 3})):
        seen: dict[str, int] = {}
        expected = []
        for text in best_first(texts_of(some), "clip"):
            seen[text["text"]] = seen.get(text["text"], 0) + 1
            if seen[text["text"]] <= most:
                expected.append(text)
        folder = select([{**rule, "best": "clip"}], f"most{most}")
        assert chosen(folder) == places(expected)


def test_without_a_score_the_first_of_equal_texts_stays(select, some):
    seen, expected = set(), []
    for text in texts_of(some):
        if text["text"] not in seen:
            expected.append(text)
        seen.add(text["text"])
    assert chosen(select([{"duplicates": "texts"}])) == places(expected)


def test_a_precision_by_the_sources_truth_takes_the_lowest_threshold_that_has_it(select, some):
    values = {"data.label": "truth", "data.right": ["True"]}
    folder = select([{"score": "clip", "precision": 0.9, "of": "web"}], **values)
    rule = Selection(folder).manifest["rules"][0]
    web = [t for t in texts_of(some) if t["place"] == 0]
    kept = [t for t in web if t["clip"] >= rule["limit"]]
    right = sum(t["record"]["fields"]["truth"] for t in kept)
    assert right / len(kept) == pytest.approx(rule["precision"][0], abs=0.02)
    assert 0.9 <= rule["precision"][0] < 0.95
    assert rule["precision"][1] < 0.9 < rule["precision"][2]
    sure = select(
        [{"score": "clip", "precision": 0.9, "of": "web", "sure": True}], "sure", **values
    )
    assert Selection(sure).manifest["rules"][0]["limit"] > rule["limit"]


def test_a_choice_does_not_depend_on_blocks_shards_or_tables(select, some, tmp_path, write):
    from lavis_lite.projects.blip.capfilt.tabulate import tabulate

    rules = [
        {"score": "clip", "fraction": 0.7, "by": "kind"},
        {"duplicates": "texts", "best": "clip"},
        {"score": "itm", "fraction": 0.5},
    ]
    first = chosen(select(rules, "a"))
    assert chosen(select(rules, "b", **{"runner.block_size": 1})) == first
    other = write(tmp_path / "other", some, shard_size=7)
    tabulate(other)
    assert chosen(select(rules, "c", **{"data.records": str(other)})) == first
