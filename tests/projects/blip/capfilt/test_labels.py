"""Files of labels: whole lines from several writers, torn ones skipped, mistakes named."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lavis_lite.errors import DataError
from lavis_lite.projects.blip.capfilt import labels
from lavis_lite.projects.blip.capfilt.labels import Label, append, read_labels, verdicts

WRITER = """
import sys
from pathlib import Path
from lavis_lite.projects.blip.capfilt.labels import Label, append
folder, first, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for n in range(first, first + number):
    append(folder, Label(f"k{n}", 0, "web", "e" * 20_000, "fits", "anna", f"2026-01-01 {n:06d}"))
    print(n, flush=True)
"""


def label(**changes):
    values = {
        "key": "a/1",
        "place": 0,
        "source": "web",
        "text": "a cat\u2028<b>",
        "label": "fits",
        "labeller": "anna",
        "time": "2026-01-01T10:00:00+00:00",
        "note": "",
    }
    return Label(**values | changes)


def test_what_is_appended_is_read_again(tmp_path):
    mine = [label(), label(place=1, label="does not fit", note='so "so"\n', time="2026-01-02")]
    for one in mine:
        append(tmp_path, one)
    assert read_labels(tmp_path) == mine
    assert read_labels(tmp_path / "labels") == mine
    assert read_labels(tmp_path / "labels" / "anna.jsonl") == mine
    assert len((tmp_path / "labels" / "anna.jsonl").read_bytes().splitlines()) == 2


def test_the_last_judgement_of_a_labeller_holds_and_nothing_is_erased(tmp_path):
    append(tmp_path, label(label="unsure", time="2026-01-01"))
    append(tmp_path, label(labeller="bo", label="does not fit", time="2026-01-02"))
    append(tmp_path, label(label="fits", time="2026-01-03"))
    held = read_labels(tmp_path)
    assert [(one.labeller, one.label) for one in held] == [("bo", "does not fit"), ("anna", "fits")]
    assert len((tmp_path / "labels" / "anna.jsonl").read_text().splitlines()) == 2


def test_most_labellers_decide_and_a_draw_decides_nothing():
    three = [label(), label(labeller="b", label="does not fit"), label(labeller="c")]
    assert verdicts(three) == {("a/1", 0): True}
    assert verdicts(three[:2]) == {}
    assert verdicts([label(label="unsure")]) == {}
    assert verdicts([label(label="does not fit"), label(labeller="b", label="unsure")]) == {
        ("a/1", 0): False
    }


def test_two_writers_of_one_file_leave_whole_lines(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path, str(first), "40"], stdout=subprocess.DEVNULL
        )
        for first in (0, 1000)
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(read_labels(tmp_path)) == 80


def test_every_confirmed_label_survives_a_kill(tmp_path):
    arguments = [sys.executable, "-c", WRITER, tmp_path, "0", "100000"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(5):
            writer.stdout.readline()
        time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        confirmed = 5 + len(writer.stdout.readlines())
    assert {f"k{n}" for n in range(confirmed)} <= {one.key for one in read_labels(tmp_path)}


def test_a_line_that_was_cut_short_is_skipped_and_swallows_nothing(tmp_path, caplog):
    append(tmp_path, label())
    file = tmp_path / "labels" / "anna.jsonl"
    with file.open("ab") as half:
        half.write(b'{"key": "b", "place": 0, "te')
    append(tmp_path, label(key="c"))
    assert [one.key for one in read_labels(tmp_path)] == ["a/1", "c"]
    assert "line 2: cut short" in caplog.text


def test_a_file_that_grows_is_read_on_and_one_that_was_replaced_anew(tmp_path):
    holding, file = labels.Holding(), tmp_path / "labels" / "anna.jsonl"
    append(tmp_path, label())
    assert [one.key for one in holding.read(file)] == ["a/1"]
    with file.open("ab") as half:
        half.write(b'{"key": "b"')  # another process is writing
    assert holding.read(file) == []
    append(tmp_path, label(key="c"))
    assert [one.key for one in holding.read(file)] == ["c"]
    file.write_text("")
    append(tmp_path, label(key="d"))
    assert [one.key for one in holding.read(file)] == ["d"]


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path, monkeypatch):
    append(tmp_path, label())
    before = (tmp_path / "labels" / "anna.jsonl").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(labels.os, "fsync", full)
    with pytest.raises(DataError, match="was not written"):
        append(tmp_path, label(key="b"))
    assert (tmp_path / "labels" / "anna.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "fit"}, "Did you mean 'fits'"),
        ({"place": -1}, "0 is the web text"),
        ({"place": True}, "is no int"),
        ({"key": 3}, "key of a label"),
        ({"labeller": "../anna"}, "take letters"),
        ({"labeller": ""}, "take letters"),
        ({"labeller": ".anna"}, "no dot first"),
        ({"labeller": "anna\n"}, "take letters"),
    ],
)
def test_a_label_that_is_none_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        label(**change)


def test_a_wrong_line_is_named_with_its_file(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"key": "a", "place": 0}) + "\n")
    with pytest.raises(DataError, match="line 1: a label without source, text"):
        read_labels(file)
    file.write_text("[1]\n")
    with pytest.raises(DataError, match=r"line 1: \[1\] is no label"):
        read_labels(file)


@pytest.mark.parametrize("place", ["nowhere", "nowhere.jsonl", "."])
def test_no_labels_is_said(tmp_path, place):
    with pytest.raises(DataError, match="no labels"):
        read_labels(tmp_path / place)
