import json
import logging

import pytest

from lavis_lite.data.quarantine import Quarantine
from lavis_lite.errors import DataError


def record(index, reason="truncated image", dataset="photos", **more):
    return {"dataset": dataset, "index": index, "key": f"k{index}", "reason": reason, **more}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_sample_is_written_once_and_counted_by_the_kind_of_reason(tmp_path):
    path = tmp_path / "out" / "quarantine.jsonl"
    quarantine = Quarantine(str(path))
    for epoch in range(3):
        quarantine.add(record(4, "missing file: a.jpg", epoch=epoch))
        quarantine.add(record(5, "missing file: b.jpg", epoch=epoch))
        quarantine.add(record(4, dataset="others", epoch=epoch))
    assert quarantine.counts == {"missing file": 2, "truncated image": 1}
    assert quarantine.total == 3
    assert [(r["dataset"], r["index"], r["epoch"]) for r in lines(path)] == [
        ("photos", 4, 0),
        ("photos", 5, 0),
        ("others", 4, 0),
    ]


def test_a_restart_and_another_process_know_what_is_written(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    first = Quarantine(str(path))
    first.add(record(1))
    second = Quarantine(str(path))
    assert second.total == 1
    second.add(record(1))
    second.add(record(2))
    first.add(record(2))
    assert [r["index"] for r in lines(path)] == [1, 2]
    assert first.total == second.total == 2


def test_half_a_line_left_by_a_kill_spoils_nothing(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    Quarantine(str(path)).add(record(1))
    with path.open("a") as file:
        file.write('{"dataset": "photos", "ind')
    again = Quarantine(str(path))
    assert again.total == 1
    again.add(record(2))
    assert Quarantine(str(path)).total == 2


@pytest.mark.fault(19)
def test_too_many_bad_ones_stop_the_run_with_the_counts(tmp_path):
    quarantine = Quarantine(str(tmp_path / "q.jsonl"), max_bad_fraction=0.1)
    for index in range(11):
        quarantine.add(record(index, f"missing file: {index}.jpg"))
    quarantine.seen(99)  # too few to judge by
    with pytest.raises(DataError, match=r"11 of 109 samples .* max_bad_fraction=0\.1") as caught:
        quarantine.seen(10)
    assert "missing file 11" in str(caught.value)
    assert "q.jsonl" in str(caught.value)


def test_exactly_the_fraction_is_still_allowed():
    quarantine = Quarantine(max_bad_fraction=0.1)
    for index in range(10):
        quarantine.add(record(index))
    quarantine.seen(100)
    assert quarantine.total == 10
    quarantine.add(record(10))
    with pytest.raises(DataError, match="11 of 100 samples"):
        quarantine.seen(0)


@pytest.mark.fault(21)
def test_a_flood_is_logged_now_and_then(caplog):
    quarantine = Quarantine()
    with caplog.at_level(logging.WARNING):
        for index in range(100_000):
            quarantine.add(record(index))
    assert len(caplog.records) == 101
    assert quarantine.total == 100_000


def test_strange_reasons_are_written(tmp_path):
    path = tmp_path / "q.jsonl"
    Quarantine(str(path)).add(record(1, "damaged image: \udcff \x00 🙂"))
    assert Quarantine(str(path)).total == 1


def test_a_resumed_run_judges_by_all_that_was_read_and_not_by_a_few_samples(tmp_path):
    first = Quarantine(str(tmp_path / "q.jsonl"), max_bad_fraction=0.1)
    for index in range(40):
        first.add(record(index))
        first.seen(20)
    resumed = Quarantine(str(tmp_path / "q.jsonl"), max_bad_fraction=0.1)
    resumed.load_state_dict(first.state_dict())
    for index in range(40, 60):  # 20 of 100: by themselves too many
        resumed.add(record(index))
    resumed.seen(100)
    for index in range(60, 100):
        resumed.add(record(index))
    with pytest.raises(DataError, match="100 of 920 samples could not be read"):
        resumed.seen(20)
