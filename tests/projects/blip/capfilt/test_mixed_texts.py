"""A run's texts with probabilities: one row per image, by source, by captioner, of a selection."""

from __future__ import annotations

import json

import pytest

from lavis_lite import config as configs
from lavis_lite import runners
from lavis_lite.data.several_texts import Texts
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.projects.blip.capfilt.bootstrapped import Bootstrapped
from tests.data.test_several_texts import train


@pytest.fixture
def run(capfilt):
    return capfilt("out", "captioner.generate={num_captions: 2}")


def test_an_image_is_one_row_with_its_texts_by_source(run, records):
    dataset = Bootstrapped(str(run), texts={"web": 0.3, "synthetic": 0.7})
    assert len(dataset) == 24
    for number, record in enumerate(records(run)):
        row = dataset.annotation(number)
        assert row["texts"] == Texts(
            [record["web_text"], *record["synthetic"]],
            ["web", "synthetic", "synthetic"],
            [0.3, 0.35, 0.35],
        )
        assert (row["text_input"], row["key"]) == (record["web_text"], record["key"])
    assert dataset[3]["image"].size == (4, 4)


def test_only_what_was_kept_is_drawn_where_it_is_asked_for(run, records):
    dataset = Bootstrapped(str(run), texts={"kept_web": 0.5, "kept_synthetic": 0.5})
    kept = [r for r in records(run) if r["kept"]["web"] or any(r["kept"]["synthetic"])]
    assert [dataset.annotation(n)["key"] for n in range(len(dataset))] == [r["key"] for r in kept]
    for number, record in enumerate(kept):
        texts = dataset.annotation(number)["texts"]
        assert ("kept_web" in texts.sources) == record["kept"]["web"]
        assert sum(texts.probabilities) == pytest.approx(1)
    left_out = dataset.counts.left_out
    assert left_out.get("no text of the sources", 0) == 24 - len(kept)


def test_captioners_have_probabilities_of_their_own(run):
    for path in (run / "shards").glob("shard-??????.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            scores = row.pop("scores")
            row |= {"version": 2, "sources": ["blip", "gpt"], "text_scores": {"itm": scores}}
            row |= {"image_scores": {}, "scores": scores}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = Bootstrapped(str(run), texts={"web": 0.2, "blip": 0.5, "gpt": 0.3})
    row = dataset.annotation(0)
    assert row["texts"].sources == ["web", "blip", "gpt"]
    assert row["texts"].probabilities == [0.2, 0.5, 0.3]
    with pytest.raises(ConfigError, match=r"no source 'bilp'\. Did you mean 'blip'"):
        Bootstrapped(str(run), texts={"web": 0.2, "bilp": 0.8})


def test_a_resumed_run_draws_the_same_texts(run):
    dataset = Bootstrapped(str(run), texts={"web": 0.3, "synthetic": 0.7})
    whole = train(dataset, 0, 18)
    assert train(dataset, 0, 5) + train(dataset, 5, 18, num_workers=1) == whole
    turns = [{text for batch in whole[n : n + 6] for text in batch} for n in (0, 6, 12)]
    assert turns[0] != turns[1] != turns[2]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"web": 0.5, "synthetik": 0.5}, "Did you mean 'synthetic'"),
        ({"web": 0.5, "kept_webb": 0.5}, "Did you mean 'kept_web'"),
        ({"web": 0.5, "synthetic": 0.4}, r"add up to 0\.9"),
        ({"web": -1, "synthetic": 2}, r"bootstrapped\.texts\.web"),
        ({}, "no sources"),
    ],
)
def test_wrong_sources_are_refused_with_the_nearest(run, texts, message):
    with pytest.raises(ConfigError, match=message):
        Bootstrapped(str(run), texts=texts)


def test_sources_without_any_text_are_said(capfilt):
    folder = capfilt("out", "captioner=null")
    with pytest.raises(DataError, match="no texts"):
        Bootstrapped(str(folder), texts={"synthetic": 1.0})


def test_of_a_selection_only_the_texts_that_it_chose_are_drawn(run, tmp_path, records):
    path = tmp_path / "select.yaml"
    path.write_text(
        f"runner: {{name: select}}\ndata: {{records: {run}}}\n"
        f"rules: [{{score: itm, min: 0.6}}]\nrun: {{output_dir: {tmp_path / 'chosen'}}}\n"
    )
    runners.run(configs.load_and_bind(path, []))
    dataset = Bootstrapped(str(tmp_path / "chosen"), texts={"web": 0.5, "synthetic": 0.5})
    good = {
        record["key"]: [
            text
            for text, score in zip(
                [record["web_text"], *record["synthetic"]],
                [record["scores"]["web"], *record["scores"]["synthetic"]],
                strict=True,
            )
            if score is not None and score >= 0.6
        ]
        for record in records(run)
    }
    found = {(row := dataset.annotation(n))["key"]: row["texts"].texts for n in range(len(dataset))}
    assert found == {key: texts for key, texts in good.items() if texts}
    assert len(found) < 24
