"""The output of a bootstrapping run as a dataset, written here by hand."""

from __future__ import annotations

import json

import pytest

from lavis_lite import registry
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.io.redaction import redacted


def record(index, web, kept_web, synthetic, kept_synthetic):
    return {
        "key": f"k{index}",
        "index": index,
        "image": None,
        "image_id": f"k{index}",
        "web_text": web,
        "synthetic": synthetic,
        "scores": {"web": 0.1, "synthetic": [0.9] * len(synthetic)},
        "kept": {"web": kept_web, "synthetic": kept_synthetic},
        "reason": {"web": "", "synthetic": [""] * len(synthetic)},
        "fields": {"noise": "junk"},
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shards").mkdir()
    job = {"source": {"name": "scenes", "split": "web", "size": 4}, "num_shards": 2}
    (tmp_path / "job.json").write_text(json.dumps(job))
    shards = [
        [record(0, "zero", True, ["nil", "nought"], [True, False])],
        [
            record(2, "two", False, ["pair"], [True]),
            record(3, " ", False, ["", "trio"], [False, False]),
        ],
    ]
    for number, rows in enumerate(shards):
        base = tmp_path / "shards" / f"shard-{number:06d}"
        base.with_suffix(".jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        base.with_suffix(".done").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("kept", ["zero", "nil", "pair"]),
        ("kept_web", ["zero"]),
        ("kept_synthetic", ["nil", "pair"]),
        ("web", ["zero", "two"]),
        ("synthetic", ["nil", "nought", "pair", "trio"]),
        ("all", ["zero", "nil", "nought", "two", "pair", "trio"]),
    ],
)
def test_each_choice_of_texts_is_a_row_per_text(folder, texts, expected):
    rows = registry.build("dataset", {"name": "bootstrapped", "path": str(folder), "texts": texts})
    assert [rows[n]["text_input"] for n in range(len(rows))] == expected
    assert len({rows[n]["key"] for n in range(len(rows))}) == len(rows)


def test_a_row_has_its_origin_score_fields_and_the_image_of_its_source(folder):
    rows = registry.build("dataset", {"name": "bootstrapped", "path": str(folder)})
    source = registry.build("dataset", {"name": "scenes", "split": "web", "size": 4})
    web, synthetic, other = (rows[n] for n in range(3))
    assert (web["origin"], web["score"], web["noise"]) == ("web", 0.1, "junk")
    assert (synthetic["origin"], synthetic["score"]) == ("synthetic", 0.9)
    assert web["image_id"] == synthetic["image_id"] != other["image_id"]
    assert web["image"].tobytes() == source[0]["image"].tobytes()
    assert other["image"].tobytes() == source[2]["image"].tobytes()
    assert "image" not in rows.annotation(0)


def test_a_source_that_lacks_its_secret_says_what_helps(folder):
    source = {"name": "scenes", "split": "web", "token": "hunter2"}
    (folder / "job.json").write_text(json.dumps({"source": redacted(source), "num_shards": 2}))
    rows = registry.build("dataset", {"name": "bootstrapped", "path": str(folder)})
    assert rows.annotation(0)["text_input"] == "zero"
    with pytest.raises(ConfigError, match=r"needs a secret .* with output\.images=true"):
        rows[0]


def test_samples_of_different_shards_with_one_key_stay_apart(folder):
    path = folder / "shards" / "shard-000001.jsonl"
    path.write_text(path.read_text().replace('"k2"', '"k0"'))
    rows = registry.build("dataset", {"name": "bootstrapped", "path": str(folder)})
    assert [rows[n]["key"] for n in range(3)] == ["k0/web", "k0/synthetic-0", "k0#2/synthetic-0"]


def test_an_unfinished_run_is_refused_unless_that_is_asked_for(folder):
    (folder / "shards" / "shard-000001.done").unlink()
    spec = {"name": "bootstrapped", "path": str(folder)}
    with pytest.raises(DataError, match="1 of 2 shards are not done"):
        registry.build("dataset", spec)
    assert len(registry.build("dataset", {**spec, "unfinished_ok": True})) == 2


def test_what_is_no_such_folder_or_choice_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match=r"no job\.json in it"):
        registry.build("dataset", {"name": "bootstrapped", "path": str(tmp_path / "elsewhere")})
    with pytest.raises(ConfigError, match="Did you mean 'kept_web'"):
        registry.build(
            "dataset", {"name": "bootstrapped", "path": str(folder), "texts": "kept_wep"}
        )


def test_a_choice_of_rows_works_as_for_any_dataset(folder):
    spec = {"name": "bootstrapped", "path": str(folder), "texts": "all"}
    where = {"origin": "web"}
    rows = registry.build("dataset", {**spec, "where": where, "limit": 1})
    assert [rows[n]["text_input"] for n in range(len(rows))] == ["zero"]


@pytest.mark.parametrize("named", [True, False])
def test_images_are_found_where_they_lie_now(folder, tmp_path, named):
    earlier, now = tmp_path / "earlier", tmp_path / "now"
    source = {"name": "json", "path": str(earlier / "pairs.json")}
    if named:
        source["images"] = str(earlier)
    (folder / "job.json").write_text(json.dumps({"source": source, "num_shards": 2}))
    for number, index in enumerate((0, 2)):
        shard = folder / "shards" / f"shard-{number:06d}.jsonl"
        rows = [record(index, "web", True, [], []), record(9, "other", False, [], [])]
        rows[0]["image"] = str(earlier / "a" / f"{index}.jpg")
        shard.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (now / "a").mkdir(parents=True)
    spec = {"name": "bootstrapped", "path": str(folder), "images": str(now)}
    rows = registry.build("dataset", spec)
    assert [rows[n]["image"] for n in range(2)] == [str(now / "a" / f"{n}.jpg") for n in (0, 2)]
    with pytest.raises(DataError, match="no such folder"):
        registry.build("dataset", spec | {"images": str(tmp_path / "none")})


def test_images_outside_of_the_sources_folders_are_named(folder, tmp_path):
    job = {"source": {"name": "folder", "path": str(tmp_path / "pictures")}, "num_shards": 2}
    (folder / "job.json").write_text(json.dumps(job))
    row = record(0, "web", True, [], []) | {"image": "/elsewhere/0.jpg"}
    (folder / "shards" / "shard-000000.jsonl").write_text(json.dumps(row) + "\n")
    rows = registry.build(
        "dataset", {"name": "bootstrapped", "path": str(folder), "images": str(folder)}
    )
    with pytest.raises(DataError, match=r"not below the source's folders: /elsewhere/0.jpg"):
        rows[0]
