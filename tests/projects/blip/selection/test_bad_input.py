"""What is wrong with records, rules and labels is said before anything is lost."""

from __future__ import annotations

import json
import logging
import shutil

import pytest

from lavis_lite.errors import ConfigError, DataError
from lavis_lite.projects.blip.capfilt.labels import Label, append
from lavis_lite.projects.blip.selection.reading import Selection

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")


def lines(run, shard=1):
    return run / "shards" / f"shard-{shard:06d}.jsonl"


def test_a_file_of_records_that_is_cut_is_named(select, run):
    path = lines(run)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"shard-000001\.jsonl: .* bytes of .* cut or changed"):
        select([{"score": "itm", "min": 0.5}])
    path.write_bytes(whole)
    assert len(Selection(select([{"score": "itm", "min": 0.5}])))


def edited(run, change, number=3):
    """Change a record, and its file's size in the mark."""
    path = lines(run)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows[number])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mark = path.with_suffix(".done")
    note = json.loads(mark.read_text())
    note["files"][path.name]["size"] = path.stat().st_size
    mark.write_text(json.dumps(note))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 7}, "records of version 7; this release reads up to 2"),
        ({"key": "k20"}, "the key 'k20' is there 2 times"),
        ({"synthetic": ["one", "two", "three"]}, "not a value for each of its captions"),
        ({"web_text": None}, "record 'k23': not all of its texts are texts"),
    ],
)
def test_records_that_are_none_are_named(select, run, change, said):
    edited(run, lambda record: record.update(change))
    with pytest.raises(DataError, match=said):
        select([{"score": "itm", "min": 0.5}])


def test_a_score_that_is_no_number_is_named_with_its_record(select, run):
    edited(run, lambda r: r["text_scores"]["clip"].update(web=float("nan")))
    with pytest.raises(DataError, match=r"record 'k23': its score `clip` is nan"):
        select([{"score": "itm", "min": 0.5}])


def test_a_run_that_is_not_finished_is_refused_unless_one_says_so(select, run):
    lines(run).with_suffix(".done").unlink()
    with pytest.raises(DataError, match="1 of 5 shards are not done"):
        select([])
    folder = select([], **{"data.unfinished_ok": True})
    assert {row["shard"] for row in Selection(folder).rows()} == {0, 2, 3, 4}


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([{"score": "itn", "min": 0.5}], r"rules\[0\]\.score: no score 'itn'\. Did you mean 'itm'"),
        ([{"score": "itm", "mim": 0.5}], r"rules\[0\]\.mim: unknown key\. Did you mean 'min'"),
        ([{"scor": "itm", "min": 0.5}], r"begins with none of .*Did you mean 'score'"),
        ([{"score": "itm"}], "a threshold needs `min` or `max`"),
        ([{"score": "itm", "fraction": 30}], "above 0, at most 1, not 30; for 30 % write 0.3"),
        ([{"fraction": 0.3}], "the score that the fraction is of"),
        ([{"score": "itm", "min": "high"}], r"rules\[0\]\.min: .* is expected, not str 'high'"),
        ([{"score": "itm", "min": 0.5, "of": "wep"}], "Did you mean 'web'"),
        ([{"kept": True, "fraction": 0.5}], "in one rule"),
        ([{"score": "itm", "min": 0.8, "max": 0.2}], "no web text has a itm of at least 0.8"),
        (
            [{"score": "itm", "min": 0.8}, {"score": "itm", "max": 0.7, "of": "web"}],
            r"rules\[1\]: contradicts",
        ),
        ([{"kept": True}, {"kept": False}], r"rules\[1\]: contradicts rules\[0\]"),
        ([{"duplicates": "images", "within": 20}], "from 0 to 7 bits"),
        ([{"duplicates": "images", "of": "web"}], "goes with all of its texts"),
        ([{"duplicates": "texts", "best": "klip"}], r"rules\[0\]\.best: no score 'klip'"),
        ([{"most_per_text": 0}], "at least 1, not 0"),
        ([{"score": "clip", "precision": 0.9}], "nothing is known about the texts"),
        ([{"score": "clip", "fraction": 0.5, "by": "kynd"}], "no row has a field 'kynd'. Did you"),
    ],
)
def test_rules_that_are_none_say_what_is_meant(select, rules, said, tmp_path):
    with pytest.raises((ConfigError, DataError), match=said):
        select(rules)
    assert not (tmp_path / "out" / "selection.json").exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"keep": "bets"}, "Did you mean 'best'"),
        ({"keep": {"best": 0}}, "1 or more, not 0"),
        ({"keep": {"best": 1, "by": "itn"}}, r"keep\.by: no score 'itn'"),
        ({"keep": "best"}, "say the best by which score: itm, clip"),
        ({"scores": {"mix": {"fuse": "y", "weights": {"itm": 1}}}}, r"scores\.mix\.fuse"),
        ({"scores": {"mix": {"fuse": "z", "weights": {"itn": 1}}}}, r"no score 'itn'"),
        ({"scores": {"itm": {"fuse": "z", "weights": {"clip": 1}}}}, "have a score of this name"),
        ({"scores": {"mix": {"fuse": "z"}}}, "write {fuse: z"),
    ],
)
def test_what_else_a_config_says_wrongly(select, values, said):
    with pytest.raises(ConfigError, match=said):
        select([], **values)


def test_all_problems_of_rules_are_told_together(select):
    with pytest.raises(ConfigError) as error:
        select([{"score": "itn", "min": 0.1}, {"score": "klip", "min": 0.1}])
    assert len(str(error.value).splitlines()) == 2


def test_a_rule_that_keeps_nothing_is_warned_of_with_the_scores_range(select, caplog, some):
    caplog.set_level(logging.WARNING)
    folder = select([{"score": "clip", "min": 2.0}])
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "rules[0]: clip ≥ 2 keeps nothing: the scores are from 0.0" in said
    assert "the selection is empty: nothing is left after 'clip ≥ 2'" in said
    assert len(Selection(folder)) == 0


def label(key, place, fits="fits"):
    return Label(key, place, "web", "t", fits, "anna", "2026-01-01T00:00:00+00:00")


def test_labels_of_other_keys_are_told_and_the_others_count(select, run, caplog):
    for index in range(0, 80, 2):
        append(run, label(f"k{index}", 0, "fits" if index % 4 else "does not fit"))
    append(run, label("elsewhere", 0))
    rule = {"score": "clip", "precision": 0.3, "of": "web"}
    folder = select([rule])
    assert "1 of 41 labels are of texts that the records don't have, such as 'elsewhere/0'" in (
        caplog.text
    )
    found = Selection(folder).manifest["rules"][0]
    assert found["precision"][0] >= 0.3
    assert len(Selection(folder).manifest["counts"]["judged"]) == 40


def test_labels_of_another_run_altogether_are_refused(select, run):
    append(run, label("elsewhere", 0))
    with pytest.raises(DataError, match="are they of another run"):
        select([{"score": "clip", "precision": 0.9}])


def test_a_precision_that_no_threshold_has_says_the_best_there_is(select, run):
    for index in range(1, 40):
        append(run, label(f"k{index}", 0, "does not fit"))
    with pytest.raises(DataError, match=r"no threshold has a precision of 0\.9 .* 0\.000 at best"):
        select([{"score": "clip", "precision": 0.9}])


def test_a_selection_that_is_cut_or_lost_its_run_is_refused(select, run, tmp_path):
    folder = select([])
    part = folder / "texts" / "part-000001.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-5])
    with pytest.raises(DataError, match=r"part-000001\.parquet: missing or cut"):
        Selection(folder)
    part.write_bytes(whole)
    shutil.move(run, tmp_path / "gone")
    with pytest.raises(DataError, match="move it back"):
        Selection(folder)


def test_what_is_no_selection_says_so(tmp_path, run):
    with pytest.raises(DataError, match="not a selection: no selection"):
        Selection(run)
    (tmp_path / "half" / "work").mkdir(parents=True)
    with pytest.raises(DataError, match="it is not finished: start it again"):
        Selection(tmp_path / "half")
