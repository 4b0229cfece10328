"""lavis-lite select, export-selection and tabulate."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lavis_lite import cli
from lavis_lite.projects.blip.selection import command
from lavis_lite.projects.blip.selection.exports import EXPORTS
from lavis_lite.projects.blip.selection.reading import Selection

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")
DOCS = Path(__file__).resolve().parents[4] / "docs"


def values(*words):
    return command.values_of(command.select_arguments(words))


def test_options_become_rules_in_a_fixed_order():
    found = values(
        *("run", "--unique", "images", "--top", "clip=0.3", "--by", "clip", "--kept"),
        *("--where", "itm>=0.6 and web:clip<=.9", "--where", "synthetic: sieve >= -1e-1"),
    )
    assert found["rules"] == [
        {"kept": True},
        {"score": "itm", "min": 0.6},
        {"score": "clip", "max": 0.9, "of": "web"},
        {"score": "sieve", "min": -0.1, "of": "synthetic"},
        {"score": "clip", "fraction": 0.3},
        {"duplicates": "images", "best": "clip"},
    ]
    assert found["run.output_dir"] == "run_selection"


@pytest.mark.parametrize(
    ("words", "keep"),
    [
        (["--keep", "all", "--by", "clip"], "all"),
        (["--keep", "best"], "best"),
        (["--keep", "best:2", "--by", "clip"], {"best": 2, "by": "clip"}),
        (["--keep", "best", "--by", "clip"], {"best": 1, "by": "clip"}),
        (["--keep", "synthetic_if_web_failed"], "synthetic_if_web_failed"),
        (
            ["--keep", "synthetic_if_web_failed", "--by", "clip"],
            {"synthetic_if_web_failed": None, "by": "clip"},
        ),
        (["--keep", "synthetic_if_web_failed:1"], {"synthetic_if_web_failed": 1}),
    ],
)
def test_what_an_image_keeps(words, keep):
    assert values("run", *words)["keep"] == keep


def test_a_selection_and_an_export_in_one_command(run, tmp_path, capsys):
    keys = tmp_path / "keys.txt"
    words = ["select", str(run), "--where", "itm>=0.5", "--export", "keys", str(keys)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{run}_selection\n{keys}: ")
    chosen = {row["key"] for row in Selection(f"{run}_selection").rows()}
    assert set(keys.read_text().split()) == chosen
    assert Path(f"{run}_selection/selection_report.html").is_file()


def test_overrides_and_a_config_of_ones_own(run, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "_base_: blip/select.yaml\ndata: {label: null, right: []}\n"
        "rules: [{score: clip, fraction: 0.25}]\n"
    )
    words = ["select", str(run), "--cfg", str(path), "--out", str(tmp_path / "o"), "keep=all"]
    assert cli.main([*words, "runner.block_size=30"]) == 0
    rules = Selection(tmp_path / "o").manifest["rules"]
    assert [rule["said"] for rule in rules] == [{"score": "clip", "fraction": 0.25}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--where", "itm>0.5"], "write SCORE>=NUMBER"),
        (["--where", "itm>=high"], "'high' is no number"),
        (["--top", "clip"], "write NAME=SHARE"),
        (["--keep", "best:x"], "write best:2"),
        (["--where", "itn>=0.5"], "Did you mean 'itm'"),
    ],
)
def test_what_makes_no_rule_is_said(run, words, said, capsys):
    assert cli.main(["select", str(run), *words]) == 2
    assert said in capsys.readouterr().err


def test_an_export_that_would_overwrite_names_the_flag(run, tmp_path, capsys):
    target = tmp_path / "keys.txt"
    target.write_text("mine")
    assert cli.main(["select", str(run), "--where", "itm>=0.5"]) == 0
    words = ["export-selection", f"{run}_selection", str(target), "--to", "keys"]
    assert cli.main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert cli.main([*words, "--overwrite"]) == 0


def test_the_tables_of_a_finished_run(run, capsys):
    assert cli.main(["tabulate", str(run)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [Path(line).name for line in said] == [f"shard-{n:06d}.parquet" for n in range(5)]


def test_the_formats_that_the_commands_name_are_those_there_are():
    assert set(command._FORMATS) == set(EXPORTS)


def test_the_commands_of_the_documentation_are_understood():
    text = (DOCS / "selections.rst").read_text(encoding="utf-8")
    shown = re.findall(r"^   \$ lavis-lite (select|export-selection) (.*)$", text, re.MULTILINE)
    assert len(shown) >= 8
    for name, words in shown:
        split = [one.strip("\"'") for one in re.findall(r"\"[^\"]*\"|'[^']*'|\S+", words)]
        if name == "select":
            assert command.values_of(command.select_arguments(split))["data.records"]
        else:
            command._export_parser().parse_args(split)


def test_the_manifest_is_plain_json(run, tmp_path, capsys):
    assert cli.main(["select", str(run), "--top", "clip=0.5", "--out", str(tmp_path / "o")]) == 0
    found = json.loads((tmp_path / "o" / "selection.json").read_text())
    assert found["rules"][0]["strata"][""]["kept"] == sum(found["counts"]["chosen"].values())
