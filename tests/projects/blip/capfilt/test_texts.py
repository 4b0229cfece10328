"""Texts and scores as they are read back."""

from __future__ import annotations

import hashlib
import json

import pytest

from lavis_lite.errors import DataError
from lavis_lite.projects.blip.capfilt.texts import RunRecords, Text, read_records, texts

OLD = {
    "key": "a",
    "index": 0,
    "web_text": "a web text",
    "synthetic": ["one", "two"],
    "scores": {"web": 0.25, "synthetic": [0.75, None]},
    "kept": {"web": False, "synthetic": [True, False]},
    "reason": {"web": "below", "synthetic": ["kept", "repeated"]},
}


def test_a_record_of_version_1_has_the_score_of_its_filter_and_one_captioner():
    assert texts(OLD) == [
        Text("web", "a web text", {"itm": 0.25}, False, "below"),
        Text("captioner", "one", {"itm": 0.75}, True, "kept"),
        Text("captioner", "two", {"itm": None}, False, "repeated"),
    ]
    assert texts(OLD, "itc")[0].scores == {"itc": 0.25}


def test_a_record_of_version_2_has_all_scores_and_sources():
    scores = {"itm": OLD["scores"], "words": {"web": 3, "synthetic": [1, 1]}}
    new = {**OLD, "version": 2, "sources": ["blip", "qwen"], "text_scores": scores}
    assert [text.source for text in texts(new)] == ["web", "blip", "qwen"]
    assert texts(new)[1].scores == {"itm": 0.75, "words": 1}


def test_a_run_is_read_with_the_kind_of_its_filter(capfilt, records):
    folder = capfilt("out", "filter.score=itc", "filter.threshold=0.5")
    written, found = records(folder), list(read_records(folder))
    assert [r["key"] for r in found] == [r["key"] for r in written]
    assert [r["text_scores"] for r in found] == [{"itc": r["scores"]} for r in written]
    assert RunRecords(folder).text_scores == ["itc"]
    assert "version" not in written[0]


def test_a_run_without_a_filter_has_no_scores(capfilt):
    folder = capfilt("out", "filter=null")
    assert texts(next(read_records(folder)))[1].scores == {}


def add_lengths(folder, name="lengths", scorer="length", shards=(0, 1, 2)):
    """Scores beside a run, as its scoring pass lays them out."""
    own = folder / "scores" / name
    (own / "shards").mkdir(parents=True)
    job = {**json.loads((folder / "job.json").read_text()), "settings": {}}
    job |= {"text_scores": [scorer], "image_scores": ["parity"]}
    (own / "job.json").write_text(json.dumps(job))
    for shard in shards:
        file = folder / "shards" / f"shard-{shard:06d}.jsonl"
        with (own / "shards" / file.name).open("w") as out:
            for line in file.read_text().splitlines():
                record = json.loads(line)
                length = {
                    "web": len(record["web_text"]),
                    "synthetic": [len(text) for text in record["synthetic"]],
                }
                scores = {"text_scores": {scorer: length}, "image_scores": {"parity": shard % 2}}
                out.write(json.dumps({"index": record["index"], **scores}) + "\n")
        mark = {"records_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        (own / "shards" / f"{file.stem}.done").write_text(json.dumps(mark))
    return own


def test_added_scores_are_joined_to_their_texts(capfilt):
    folder = capfilt()
    add_lengths(folder)
    found = list(read_records(folder))
    assert len(found) == 24
    for record in found:
        for text in texts(record):
            assert set(text.scores) == {"itm", "length"}
            assert text.scores["length"] == len(text.text)
    assert [record["image_scores"]["parity"] for record in found] == [0] * 8 + [1] * 8 + [0] * 8
    assert RunRecords(folder).image_scores == ["parity"]


def test_added_scores_that_are_not_done_are_asked_for_or_left_out(capfilt):
    folder = capfilt()
    add_lengths(folder, shards=(0, 2))
    with pytest.raises(DataError, match="1 of 3 shards are not done"):
        list(read_records(folder))
    found = list(read_records(folder, unfinished_ok=True))
    assert ["length" in texts(r)[0].scores for r in found] == [True] * 8 + [False] * 8 + [True] * 8


def test_added_scores_of_other_records_are_refused(capfilt):
    folder = capfilt()
    own = add_lengths(folder)
    (own / "shards" / "shard-000001.done").write_text('{"records_sha256": "another"}')
    with pytest.raises(DataError, match="shard-000001 are of other records"):
        list(read_records(folder))


def test_two_scores_of_one_name_are_refused(capfilt):
    folder = capfilt()
    add_lengths(folder, scorer="itm")
    with pytest.raises(DataError, match="several scores are named itm"):
        list(read_records(folder))
