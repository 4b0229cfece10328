"""Records as a parquet table: the same content, for the tools that people read tables with."""

from __future__ import annotations

import json

import pytest

from lavis_lite import registry
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.projects.blip.capfilt.table import about, records_in, table_of, write_table
from lavis_lite.projects.blip.capfilt.tabulate import is_current, tabulate
from lavis_lite.projects.blip.capfilt.texts import RunRecords

pytest.importorskip("pyarrow")


def tables(folder):
    return sorted((folder / "shards").glob("*.parquet"))


@pytest.fixture
def run(capfilt):
    return capfilt("out", "output.table=true", "captioner.generate={num_captions: 2}")


def test_a_table_has_the_records_that_the_lines_have(run, records):
    assert len(tables(run)) == 3
    assert [r for path in tables(run) for r in records_in(path)] == records(run)


def test_records_of_the_second_version_come_back_as_they_were(tmp_path):
    record = {
        "version": 2,
        "key": "k",
        "index": 3,
        "image": None,
        "image_id": 7,
        "web_text": "a “text”",
        "synthetic": ["one", "two"],
        "sources": ["blip", "other"],
        "scores": {"web": None, "synthetic": [0.25, None]},
        "kept": {"web": False, "synthetic": [True, False]},
        "reason": {"web": "empty text", "synthetic": ["kept", "empty text"]},
        "fields": {"url": "http://x", "n": [1, {"a": None}]},
        "text_scores": {"itm": {"web": None, "synthetic": [0.25, None]}},
        "image_scores": {"sha256": "ab", "nsfw": 0.5},
    }
    path = tmp_path / "t.parquet"
    write_table(table_of([record], "here"), path)
    assert list(records_in(path)) == [record]


def test_what_is_no_utf_8_is_escaped_in_the_table(tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    own = {"web": None, "synthetic": []}
    record = {"key": name, "index": 0, "image": name, "image_id": name, "web_text": "t"}
    record |= {"synthetic": [], "scores": own, "kept": {"web": True, "synthetic": []}}
    record |= {"reason": {"web": "kept", "synthetic": []}, "fields": {}}
    path = tmp_path / "t.parquet"
    write_table(table_of([record], "here"), path)
    assert next(records_in(path))["image"] == r"caf\udce9.jpg"


def test_a_finished_run_gets_its_tables_by_a_command_with_the_same_bytes(capfilt):
    first, later = capfilt("first", "output.table=true"), capfilt("later")
    assert tables(later) == []
    assert len(tabulate(later)) == 3
    assert [p.read_bytes() for p in tables(later)] == [p.read_bytes() for p in tables(first)]
    assert tabulate(later) == []
    run = RunRecords(later)
    assert all(is_current(run, shard) for shard in run.shards)


def test_asking_for_tables_of_a_finished_run_computes_nothing_anew(capfilt, watched):
    folder = capfilt("out")
    computed = (watched / "computed").read_text()
    capfilt("out", "output.table=true")
    assert (watched / "computed").read_text() == computed
    assert len(tables(folder)) == 3


def test_a_table_of_other_lines_is_written_anew(run):
    path = run / "shards" / "shard-000000.done"
    note = json.loads(path.read_text())
    note["files"]["shard-000000.jsonl"]["sha256"] = "0" * 64
    path.write_text(json.dumps(note))
    assert [p.name for p in tabulate(run)] == ["shard-000000.parquet"]


def test_duckdb_polars_pandas_and_datasets_read_it(run, records, tmp_path):
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    pandas, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    expected = records(run)
    keys = [r["key"] for r in expected]
    glob = str(run / "shards" / "*.parquet")
    best = [max(s for s in r["scores"]["synthetic"] if s is not None) for r in expected]
    query = f"SELECT key, list_max(synthetic_score), web_reason FROM '{glob}' ORDER BY index"
    found = duckdb.sql(query).fetchall()
    assert [(key, score) for key, score, _ in found] == list(zip(keys, best, strict=True))
    frame = polars.read_parquet(glob).sort("index")
    assert frame["key"].to_list() == keys
    assert frame["web_reason"].dtype == polars.Categorical
    one = pandas.read_parquet(tables(run)[0])
    assert one["key"].tolist() == keys[:8]
    assert one["web_reason"].dtype == "category"
    data = datasets.load_dataset(
        "parquet", data_files=glob, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [row["synthetic"] for row in data] == [r["synthetic"] for r in expected]
    assert json.loads(data[0]["fields"]) == expected[0]["fields"]


def test_a_run_of_which_only_tables_are_left_is_read_as_before(run):
    spec = {"name": "bootstrapped", "path": str(run), "texts": "all"}
    rows = registry.build("dataset", spec)
    before = [rows.annotation(n) for n in range(len(rows))]
    for path in (run / "shards").glob("*.jsonl"):
        path.unlink()
    rows = registry.build("dataset", spec)
    assert [rows.annotation(n) for n in range(len(rows))] == before


def test_lines_that_are_cut_are_named_with_what_helps(capfilt):
    folder = capfilt("out")
    path = folder / "shards" / "shard-000001.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"shard-000001\.jsonl.*after 7 whole records.*Delete"):
        tabulate(folder)
    assert [p.name for p in tables(folder)] == ["shard-000000.parquet"]


def test_a_later_version_and_numbers_that_are_none_are_refused(records, capfilt):
    first = records(capfilt("out"))[0]
    with pytest.raises(DataError, match="version 9; this release reads up to 2"):
        table_of([{**first, "version": 9}], "f.jsonl")
    first["scores"]["web"] = float("nan")
    with pytest.raises(DataError, match=r"f\.jsonl: record 'pair-0': its score `scores` is nan"):
        table_of([first], "f.jsonl")
    with pytest.raises(DataError, match="no 'image_id'"):
        table_of([{}], "f.jsonl")


def test_a_table_of_something_else_or_later_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="not a table of records"):
        about(path)
    meta = {b"lavis_lite": json.dumps({"schema": 9, "records": 1}).encode()}
    parquet.write_table(pa.table({"a": [1]}).replace_schema_metadata(meta), path)
    with pytest.raises(DataError, match="update lavis_lite"):
        about(path)


def test_without_pyarrow_the_run_says_what_to_install_before_it_begins(load, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    config = load("out", "output.table=true")
    with pytest.raises(ConfigError, match=r"pip install 'lavis_lite\[curation\]'"):
        registry.build("runner", config.runner.spec, config=config)
