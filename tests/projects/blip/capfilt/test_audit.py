"""Audits: texts of a bootstrapped dataset judged by what the scenes know."""

from __future__ import annotations

import json

import pytest

from lavis_lite import registry, runners
from lavis_lite.config import load_and_bind
from lavis_lite.data.scenes.captions import Scenes
from lavis_lite.errors import ConfigError

SOURCE = {"name": "scenes", "split": "web", "size": 40, "image_size": 16, "noise": 0.5}


def bootstrapped(folder, source=None):
    """Texts of a filter that keeps every third web text, and each caption of an even row.

    Captions are true, in other words than the web's, where the row's number is no multiple of 4.
    """
    (folder / "shards").mkdir(parents=True)
    job = {"source": source or SOURCE, "num_shards": 1}
    (folder / "job.json").write_text(json.dumps(job))
    scenes = Scenes(**{k: v for k, v in SOURCE.items() if k != "name"})
    lines = []
    for index in range(len(scenes)):
        row = scenes.annotation(index)
        wrong = scenes.annotation((index + 1) % len(scenes))["clean_text"]
        caption = wrong if index % 4 == 0 else row["clean_text"]
        record = {
            "key": row["key"],
            "index": index,
            "image": None,
            "image_id": row["image_id"],
            "web_text": row["text_input"],
            "synthetic": [caption],
            "scores": {"web": 0.5, "synthetic": [0.5]},
            "kept": {"web": index % 3 == 0, "synthetic": [index % 2 == 0]},
            "fields": {"noise": row["noise"], "clean_text": row["clean_text"]},
        }
        lines.append(json.dumps(record) + "\n")
    (folder / "shards" / "shard-000000.jsonl").write_text("".join(lines))
    (folder / "shards" / "shard-000000.done").write_text("{}")
    return [json.loads(line) for line in lines]


def audit(folder, out, **changes):
    source = {"name": "bootstrapped", "path": str(folder), "texts": "all"}
    values = {"data.source": source, "run.output_dir": str(out), **changes}
    return runners.run(load_and_bind("blip/audit_scenes.yaml", values=values))["metrics"]


def test_shares_are_those_of_the_records(tmp_path):
    records = bootstrapped(tmp_path / "texts")
    found = audit(tmp_path / "texts", tmp_path / "out")
    clean = [r["fields"]["noise"] == "clean" for r in records]
    kept = [r["kept"]["web"] for r in records]
    both = sum(c and k for c, k in zip(clean, kept, strict=True))
    assert found["web_right"] == pytest.approx(100 * sum(clean) / 40, abs=1e-3)
    assert found["web_precision"] == pytest.approx(100 * both / sum(kept), abs=1e-3)
    assert found["web_recall"] == pytest.approx(100 * both / sum(clean), abs=1e-3)
    # Of 40 captions every fourth is wrong; the kept 20 have all ten of those.
    assert found["synthetic_right"] == 75
    assert found["synthetic_precision"] == 50
    assert found["synthetic_recall"] == pytest.approx(100 / 3, abs=1e-3)
    assert (found["web_kept"], found["synthetic_kept"], found["all_kept"]) == (14, 20, 34)
    assert found["all_precision"] == pytest.approx(100 * (both + 10) / 34, abs=1e-3)
    done = json.loads((tmp_path / "out" / "complete.json").read_text())
    assert done["metrics"] == found


def test_other_words_are_right_and_junk_is_not(tmp_path):
    records = bootstrapped(tmp_path / "texts")
    junk = [r["web_text"] for r in records if r["fields"]["noise"] == "junk"]
    rows = registry.build("dataset", {"name": "bootstrapped", "path": str(tmp_path / "texts")})
    assert junk
    assert all(rows.facts(text) is None for text in junk)
    said = "a tiny red disc is left of a huge blue box on grey"
    meant = "on gray, a small red circle is to the left of a big blue square"
    assert rows.facts(said) == rows.facts(meant) != rows.facts(said.replace("red", "green"))


def test_a_random_choice_is_as_large_as_the_filters_and_none_of_its_own(tmp_path):
    records = bootstrapped(tmp_path / "texts")
    spec = {"name": "bootstrapped", "path": str(tmp_path / "texts")}

    def keys(texts):
        rows = registry.build("dataset", {**spec, "texts": texts})
        return [rows.annotation(n)["key"] for n in range(len(rows))]

    chosen, kept, every = keys("web_at_random"), keys("kept_web"), keys("web")
    assert len(chosen) == len(kept) == sum(r["kept"]["web"] for r in records)
    assert chosen != kept
    assert chosen == keys("web_at_random") == [key for key in every if key in chosen]
    assert set(chosen) - set(kept)
    assert set(chosen) & set(kept)


def test_data_that_cannot_be_judged_is_refused(tmp_path):
    bootstrapped(tmp_path / "texts")
    with pytest.raises(ConfigError, match=r"no field 'clean_txt'. Did you mean 'clean_text'\?"):
        audit(tmp_path / "texts", tmp_path / "out", **{"data.truth": "clean_txt"})
    plain = {"name": "json", "path": str(tmp_path / "plain.json")}
    (tmp_path / "a.png").touch()
    (tmp_path / "plain.json").write_text('[{"image": "a.png", "caption": "a cat"}]')
    with pytest.raises(ConfigError, match="cannot tell the facts of a text"):
        audit(tmp_path / "texts", tmp_path / "out", **{"data.source": plain})
    (tmp_path / "other").mkdir()
    bootstrapped(tmp_path / "other" / "texts", source=plain)
    with pytest.raises(ConfigError, match="its source cannot tell the facts of a text"):
        audit(tmp_path / "other" / "texts", tmp_path / "out")
    assert not (tmp_path / "out" / "complete.json").exists()
