"""A selection that is killed, started twice, changed or run in several processes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lavis_lite import runners
from lavis_lite.config.writing import to_yaml
from lavis_lite.errors import ConfigError
from lavis_lite.projects.blip.selection import passes
from lavis_lite.projects.blip.selection.reading import Selection

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")
ROOT = Path(__file__).resolve().parents[4]
RULES = [
    {"score": "itm", "min": 0.2},
    {"score": "clip", "fraction": 0.6},
    {"duplicates": "texts", "best": "clip"},
]


def digests(folder: Path) -> dict[str, str]:
    """What of a selection is a function of records and rules alone."""
    files = [folder / "selection.json", *sorted((folder / "texts").iterdir())]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture
def expected(select):
    return digests(select(RULES, "reference"))


def test_a_finished_selection_started_again_stays_as_it_is(select, expected, tmp_path):
    folder = tmp_path / "reference"
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    select(RULES, "reference")
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    assert {p for p in before if before[p] != after.get(p)} <= {folder / ".collect.lock"}
    assert not (folder / "work").exists()


def test_wherever_it_stops_the_next_start_finishes_with_the_same_bytes(
    select, expected, monkeypatch
):
    calls = 0
    real = {name: getattr(passes, name) for name in ("do_block", "do_all")}
    from lavis_lite.projects.blip.selection import worker

    for stop in (1, 4, 9, 14, 17):
        calls = 0

        def dying(*arguments, name, stop=stop):
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt
            return real[name](*arguments)

        for name in real:
            monkeypatch.setattr(worker, name, lambda *a, n=name, d=dying: d(*a, name=n))
        with pytest.raises(KeyboardInterrupt):
            select(RULES, f"stopped{stop}")
        for name, own in real.items():
            monkeypatch.setattr(worker, name, own)
        assert digests(select(RULES, f"stopped{stop}")) == expected


def test_a_process_that_is_killed_leaves_nothing_half(config_of, expected, tmp_path):
    config = config_of(RULES, "killed")
    path = tmp_path / "killed.yaml"
    path.write_text(to_yaml(config))
    code = (
        "import os, signal, sys\n"
        "from lavis_lite.io import files\n"
        "real, calls = files.publish, []\n"
        "def publish(*a):\n"
        "    calls.append(1)\n"
        "    if len(calls) == int(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(*a)\n"
        "files.publish = publish\n"
        "from lavis_lite.cli import main\n"
        "main(['--cfg', sys.argv[2]], program='run.py')\n"
    )
    for number in ("3", "7", "4"):
        done = subprocess.run([sys.executable, "-c", code, number, str(path)], cwd=ROOT)
        assert done.returncode == -signal.SIGKILL
        assert not (tmp_path / "killed" / "selection.json").exists()
    runners.run(config)
    assert digests(tmp_path / "killed") == expected
    assert list((tmp_path / "killed").rglob("*.tmp")) == []


def test_two_processes_choose_what_one_does(select, expected):
    values = {"runner.executor": "process", "runner.workers": 2}
    assert digests(select(RULES, "two", **values)) == expected


def test_ray_chooses_what_one_process_does(select, expected):
    pytest.importorskip("ray")
    values = {"runner.executor": "ray", "runner.workers": 2}
    assert digests(select(RULES, "ray", **values)) == expected


def test_other_rules_in_the_same_folder_are_refused(select, expected, tmp_path):
    with pytest.raises(ConfigError, match=r"rules\[0\]\.min: 0\.2 is now 0\.3"):
        select([{"score": "itm", "min": 0.3}, *RULES[1:]], "reference")
    assert digests(tmp_path / "reference") == expected


def test_records_that_changed_since_are_told(select, expected, run):
    mark = run / "shards" / "shard-000000.done"
    mark.write_text(mark.read_text().replace('"records": 20', '"records": 20, "again": 1'))
    with pytest.raises(ConfigError, match="their contents"):
        select(RULES, "reference")


def test_the_folder_of_the_run_itself_is_refused(select, run):
    with pytest.raises(ConfigError, match="a selection has its own"):
        select(RULES, "x", **{"run.output_dir": str(run)})
    assert not (run / "run.json").exists()


def test_a_selection_moves_together_with_its_run(select, expected, tmp_path):
    both = tmp_path / "moved"
    both.mkdir()
    os.rename(tmp_path / "run", both / "run")
    os.rename(tmp_path / "reference", both / "reference")
    assert Selection(both / "reference").records == (both / "run").resolve()


def test_choosing_imports_no_torch(config_of, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(to_yaml(config_of(RULES, "free", **{"run.report": "report.html"})))
    code = (
        "import sys\n"
        "from lavis_lite.cli import main\n"
        "assert main(['--cfg', sys.argv[1]], program='run.py') == 0\n"
        "print([name for name in ('torch', 'transformers', 'timm') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert (tmp_path / "free" / "report.html").is_file()
