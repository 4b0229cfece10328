"""Scores added to a finished run: their own work alone, exactly once, joined on reading."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from two_processes import PRELOADED

from lavis_lite import config as configs
from lavis_lite import registry, runners
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.projects.blip.capfilt.texts import read_records, texts

CONTEXT = multiprocessing.get_context("forkserver")
TOY = str(Path(__file__).with_name("toy_capfilt.py"))
MATCHING = {"name": "itm", "called": "matching", "model": {"name": "toy_filter", "scale": 1.0}}
CONTRAST = {"name": "neg_clip_loss", "model": {"name": "toy_filter"}, "temperature": 0.1}
WORDS = {"name": "text_statistics", "called": "text"}


@pytest.fixture
def score(tmp_path):
    """``score(run's folder, name, scorers, "key=value", ...)`` -> the config of a pass."""

    def build(folder, name="more", scorers=(MATCHING, WORDS), *overrides):
        tree = {
            "plugins": [TOY],
            "runner": {"name": "capfilt_score"},
            "records": str(folder),
            "scorers": list(scorers),
            "data": {"batch_size": 3},
            "run": {"output_dir": f"{folder}/scores/{name}", "device": "cpu", "report": None},
        }
        path = tmp_path / f"score_{name}.yaml"
        path.write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))
        return configs.load_and_bind(path, overrides)

    return build


@pytest.fixture
def calls(capfilt, monkeypatch):
    """The names of the toys' methods, once for each image or text that they compute."""
    capfilt("registers_the_toys", "data.source.size=1")
    found = []

    def watch(name, method):
        toy = registry.get("model", name)
        original = getattr(toy, method)

        @functools.wraps(original)  # its arguments say that it takes seeds
        def watched(self, first, *arguments, **options):
            size = len(options["seeds"]) if method == "generate" else len(first)
            found.extend([method] * size)
            return original(self, first, *arguments, **options)

        monkeypatch.setattr(toy, method, watched)

    watch("toy_captioner", "generate")
    for method in ("encode_image", "match"):
        watch("toy_filter", method)
    return found


def test_adding_scores_costs_their_own_work_alone(capfilt, score, calls, digests):
    folder = capfilt()
    assert (calls.count("generate"), calls.count("encode_image")) == (24, 24)
    before = digests(folder)
    calls.clear()
    runners.run(score(folder))
    assert (calls.count("generate"), calls.count("encode_image")) == (0, 24)
    assert calls.count("match") == 48  # a web text and a caption each
    assert digests(folder) == before
    calls.clear()
    runners.run(score(folder))  # it is there already
    runners.run(score(folder, "words", [{"name": "text_statistics", "called": "again"}]))
    assert calls == []


def test_what_was_added_is_what_the_run_itself_would_have_stored(capfilt, score):
    scorers = [MATCHING, CONTRAST, WORDS, {"name": "sha256"}]
    written = OmegaConf.to_container(OmegaConf.create({"scorers": scorers}))
    at_once = capfilt("at_once", f"scorers={json.dumps(written['scorers'])}")
    folder = capfilt("later")
    runners.run(score(folder, "one", [MATCHING, CONTRAST]))
    runners.run(score(folder, "two", [WORDS, {"name": "sha256"}]))
    for first, second in zip(read_records(at_once), read_records(folder), strict=True):
        assert first["text_scores"] == second["text_scores"]
        assert first["image_scores"] == second["image_scores"]
        assert set(texts(first)[0].scores) > {"itm", "matching", "neg_clip_loss", "text_words"}


def _run_and_die(config, step):
    import torch

    from lavis_lite.projects.blip.capfilt import shard
    from lavis_lite.registry.plugins import load_plugin

    torch.set_num_threads(1)
    publish, published = shard.publish, []

    def publish_and_die(temporary, path):
        if len(published) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        published.append(path)
        publish(temporary, path)

    shard.publish = publish_and_die
    load_plugin(TOY)
    runners.run(config)


@pytest.mark.parametrize("step", [0, 1, 2, 4, 8])
def test_killed_at_any_point_of_writing_and_started_again_it_adds_the_same(
    capfilt, score, digests, step
):
    folder = capfilt("undisturbed")
    runners.run(score(folder))
    expected = digests(folder / "scores" / "more")
    assert len(expected) == 3 * 3
    folder = capfilt("killed")
    CONTEXT.set_forkserver_preload([*PRELOADED, "lavis_lite.projects.blip.capfilt.runner"])
    process = CONTEXT.Process(target=_run_and_die, args=(score(folder), step))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(DataError, match="shards are not done"):
        list(read_records(folder))
    runners.run(score(folder))
    assert digests(folder / "scores" / "more") == expected


def test_workers_add_the_same(capfilt, score, digests):
    folder = capfilt("serial")
    runners.run(score(folder))
    shared = capfilt("shared")
    runners.run(score(shared, "more", [MATCHING, WORDS], "runner.executor=process"))
    assert digests(shared / "scores" / "more") == digests(folder / "scores" / "more")


def test_other_settings_or_a_taken_name_are_refused(capfilt, score):
    folder = capfilt()
    runners.run(score(folder))
    with pytest.raises(ConfigError, match=r"scorers.matching.model.scale: 1.0 is now 2.0"):
        runners.run(score(folder, "more", (MATCHING, WORDS), "scorers[0].model.scale=2.0"))
    for name, scorer in (("itm", {**MATCHING, "called": "itm"}), ("matching", MATCHING)):
        with pytest.raises(ConfigError, match=f"a score named '{name}' is there already"):
            runners.run(score(folder, "other", [scorer]))
    similarity = {"name": "caption_similarity", "model": {"name": "toy_filter"}}
    silent = capfilt("silent", "captioner=null")
    with pytest.raises(ConfigError, match="this run writes none"):
        runners.run(score(silent, "other", [similarity]))


def test_scores_lie_beside_the_records_wherever_a_pipeline_puts_its_stage(capfilt, score, tmp_path):
    folder = capfilt()
    stage = tmp_path / "pipeline" / "words"
    config = score(folder, "more", [WORDS], f"run.output_dir={stage}", "run.report=report.html")
    runners.run(config)
    assert {"complete.json", "run.json", "report.html"} <= {one.name for one in stage.iterdir()}
    assert (folder / "scores" / "words" / "shards").is_dir()
    assert "text_words" in texts(next(read_records(folder)))[0].scores
    (section, *_) = registry.get("runner", "capfilt_score").report_sections(stage, config)
    assert section.title == "All scores"


def test_a_run_that_is_not_finished_gets_no_scores(capfilt, score):
    folder = capfilt()
    (folder / "shards" / "shard-000001.done").unlink()
    with pytest.raises(DataError, match="1 of 3 shards are not done"):
        runners.run(score(folder))
    with pytest.raises(DataError, match="not the output of a bootstrapping run"):
        runners.run(score(folder / "nothing"))


def test_images_that_cannot_be_read_any_more_have_no_scores_and_are_counted(capfilt, score):
    folder = capfilt()
    source = "data.source={name: toy_pairs, broken: [5, 17]}"
    runners.run(score(folder, "more", [MATCHING, {"name": "sha256"}], source))
    found = list(read_records(folder))
    assert [r["index"] for r in found if r["image_scores"]["sha256"] is None] == [5, 17]
    assert texts(found[5])[0].scores["matching"] is None
    assert texts(found[4])[0].scores["matching"] is not None
    stats = json.loads((folder / "scores" / "more" / "stats.json").read_text())["scores"]
    assert stats["matching"]["web"]["missing"] == {"image not read": 2}
    assert stats["sha256"]["image"]["missing"] == {"image not read": 2}


def test_another_source_is_noticed(capfilt, score):
    folder = capfilt()
    with pytest.raises(DataError, match="row 3 of the source is 'pair-0' now"):
        runners.run(
            score(folder, "more", [MATCHING], "data.source={name: toy_pairs, same_key: [3]}")
        )


def test_the_page_of_a_pass_has_its_histograms_and_counts(capfilt, score):
    folder = capfilt()
    runners.run(score(folder, "more", [MATCHING, WORDS], "run.report=report.html"))
    page = (folder / "scores" / "more" / "report.html").read_text()
    assert "text_stop_words" in page
    assert "24 of 24" in page
