"""A run from rows to records, counts, a dataset and a page."""

from __future__ import annotations

import hashlib
import json
import logging

import pytest
import torch

from lavis_lite import config as configs
from lavis_lite import registry, runners
from lavis_lite.errors import ConfigError


def stats_of(folder):
    return json.loads((folder / "stats.json").read_text())


def test_every_row_becomes_a_record_in_order_and_the_counts_add_up(capfilt, records):
    folder = capfilt()
    found = records(folder)
    assert [record["index"] for record in found] == list(range(24))
    assert [record["key"] for record in found] == [f"pair-{n}" for n in range(24)]
    stats = stats_of(folder)
    assert (stats["read"], stats["images"], stats["captioned"], stats["shards"]) == (24, 24, 24, 3)
    for origin in ("web", "synthetic"):
        part = stats[origin]
        kept = [r["kept"][origin] for r in found]
        kept = [one for row in kept for one in (row if isinstance(row, list) else [row])]
        assert part["kept"] == sum(kept)
        assert 0 < part["kept"] < part["texts"] == 24
        assert sum(part["histogram"]) == 24 - part["empty"] - part["repeated"]


def test_a_text_is_kept_exactly_when_its_score_is_above_the_threshold(capfilt, records):
    for record in records(capfilt("out", "filter.threshold=0.3")):
        scores = [record["scores"]["web"], *record["scores"]["synthetic"]]
        kept = [record["kept"]["web"], *record["kept"]["synthetic"]]
        assert kept == [score > 0.3 for score in scores]


def test_scores_are_those_of_the_model_for_each_text_alone(capfilt, records):
    folder = capfilt()
    model = registry.build("model", {"name": "toy_filter"})
    rows = registry.build("dataset", {"name": "toy_pairs"})
    process = registry.build("processor", {"name": "blip_image_eval", "image_size": 4})
    for record in records(folder)[::5]:
        tokens = model.encode_image(process(rows[record["index"]]["image"])[None])
        for text, score in zip(
            [record["web_text"], *record["synthetic"]],
            [record["scores"]["web"], *record["scores"]["synthetic"]],
            strict=True,
        ):
            alone = model.match(tokens, [text]).softmax(-1)[0, 1].item()
            assert score == pytest.approx(alone, abs=2e-6)


def test_captions_are_a_function_of_seed_and_key_not_of_batch_or_shard(capfilt, records):
    one = records(capfilt("one", "captioner.generate.num_captions=2"))
    other = records(
        capfilt("other", "captioner.generate.num_captions=2", "data.batch_size=7",
                "runner.shard_size=11")
    )  # fmt: skip
    assert [r["synthetic"] for r in one] == [r["synthetic"] for r in other]
    assert all(len(r["synthetic"]) == 2 for r in one)
    third = records(capfilt("third", "captioner.generate.num_captions=2", "run.seed=1"))
    assert [r["synthetic"] for r in one] != [r["synthetic"] for r in third]


def test_the_mark_of_a_shard_holds_counts_fingerprint_and_the_hash_of_every_file(capfilt):
    folder = capfilt()
    job = json.loads((folder / "job.json").read_text())
    for number in range(3):
        note = json.loads((folder / f"shards/shard-{number:06d}.done").read_text())
        assert note["fingerprint"] == job["fingerprint"]
        assert note["rows"] == note["records"] == 8
        assert len(note["files"]) == 3
        for name, expected in note["files"].items():
            data = (folder / "shards" / name).read_bytes()
            assert expected == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_the_best_share_of_each_shard_is_kept(capfilt, records):
    found = records(capfilt("out", "filter.keep_fraction=0.25"))
    for shard in (found[:8], found[8:16], found[16:]):
        judged = []
        for record in shard:
            judged += [(record["scores"]["web"], record["kept"]["web"])]
            judged += zip(record["scores"]["synthetic"], record["kept"]["synthetic"], strict=True)
        kept = [score for score, is_kept in judged if is_kept]
        assert len(kept) == 4
        assert min(kept) >= max(score for score, is_kept in judged if not is_kept)


def test_cosine_similarities_can_decide(capfilt, records):
    folder = capfilt("out", "filter.score=itc", "filter.threshold=0.1")
    model = registry.build("model", {"name": "toy_filter"})
    rows = registry.build("dataset", {"name": "toy_pairs"})
    process = registry.build("processor", {"name": "blip_image_eval", "image_size": 4})
    for record in records(folder)[::7]:
        image = model.image_features(
            model.encode_image(process(rows[record["index"]]["image"])[None])
        )
        alone = (image * model.text_features(model.encode_text([record["web_text"]]))).sum().item()
        assert record["scores"]["web"] == pytest.approx(alone, abs=2e-6)
        assert record["kept"]["web"] == (record["scores"]["web"] > 0.1)


def test_without_a_filter_all_texts_are_kept_and_without_a_captioner_none_is_written(
    capfilt, records
):
    unfiltered = records(capfilt("unfiltered", "filter=null"))
    assert all(r["kept"] == {"web": True, "synthetic": [True]} for r in unfiltered)
    assert all(r["scores"] == {"web": None, "synthetic": [None]} for r in unfiltered)
    only_web = records(capfilt("only_web", "captioner=null"))
    assert all(r["synthetic"] == [] for r in only_web)
    assert len({r["kept"]["web"] for r in only_web}) == 2


def test_a_label_of_the_rows_is_counted_and_decides_nothing(capfilt, records):
    folder = capfilt("out", "data.label=kind")
    labels = stats_of(folder)["labels"]
    assert labels.keys() == {"kind0", "kind1"}
    for label, part in labels.items():
        kept = [r["kept"]["web"] for r in records(folder) if r["fields"]["kind"] == label]
        assert part == {"texts": 12, "kept": sum(kept)}
    assert records(capfilt("other")) == records(folder)


def test_a_text_that_is_no_number_away_from_nan_is_rejected(capfilt, records):
    found = records(capfilt("out", "filter.scale=.nan"))
    assert not any(r["kept"]["web"] or any(r["kept"]["synthetic"]) for r in found)
    assert {r["reason"]["web"] for r in found} == {"score is not a number"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["captioner.name=toy_blind"], "captioner: a captioner needs generate"),
        (["filter.name=toy_captioner"], "filter: a filter needs encode_image, match"),
        (["filter.name=toy_captioner", "filter.score=itc"], "image_features, text_features"),
        (["filter.score=itc"], "filter.threshold: `score: itc` has no natural one"),
        (["filter.threshold=0.5", "filter.keep_fraction=0.5"], "one of them, not both"),
        (["captioner=null", "filter=null"], "at least one of them"),
        (["captioner.generate.num_caption=2"], "Did you mean 'num_captions'?"),
        (["runner.shard_size=0"], "runner.shard_size: 0; at least 1"),
        (["runner.executor=slurm"], "'slurm' is not one of its values"),
        (["runner.shardsize=3"], "Did you mean 'shard_size'?"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_built(load, tmp_path, overrides, message):
    with pytest.raises(ConfigError) as caught:
        registry.build("runner", (config := load("out", *overrides)).runner.spec, config=config)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_shipped_config_captions_and_filters_scenes(tmp_path, records, caplog):
    config = configs.load_and_bind(
        "blip/capfilt_scenes",
        [f"run.output_dir={tmp_path}/out", "data.source.limit=10", "runner.shard_size=6"],
    )
    with caplog.at_level(logging.INFO):
        runners.run(config)
    found = records(tmp_path / "out")
    assert len(found) == 10
    assert all(0 < r["scores"]["web"] < 1 for r in found if r["scores"]["web"] is not None)
    assert {r["fields"]["noise"] for r in found} <= {"clean", "mismatch", "attribute", "junk"}
    page = (tmp_path / "out" / "capfilt_report.html").read_text()
    assert "What was kept" in page
    assert "of the right web texts were kept" in page
    assert page.count("<img") >= 4
    assert torch.get_num_threads() == 1


def test_speed_and_sizes_are_summed_up(capfilt):
    folder = capfilt("out", "output.images=true")
    with (folder / "timings.jsonl").open("a") as file:
        file.write('{"shard": 9, "ima')  # cut by a kill
    capfilt("out", "output.images=true")
    done = json.loads((folder / "complete.json").read_text())
    lines = (folder / "timings.jsonl").read_text().splitlines()[:3]
    seconds = [json.loads(line)["seconds"] for line in lines]
    assert done["metrics"]["images_per_second"] == pytest.approx(
        24 / sum(one["total"] for one in seconds), rel=1e-3
    )
    assert done["metrics"]["images_per_cpu_second"] == pytest.approx(
        24 / sum(one["cpu"] for one in seconds), rel=1e-3
    )
    assert done["seconds_by_stage"]["caption"] == pytest.approx(
        sum(one["caption"] for one in seconds), abs=1e-3
    )
    written = {suffix: 0 for suffix in ("jsonl", "quarantine", "stats.json", "tar")}
    for suffix in written:
        written[suffix] = sum(
            f.stat().st_size for f in (folder / "shards").glob(f"shard-??????.{suffix}")
        )
    assert stats_of(folder)["bytes"] == written
    assert done["metrics"]["bytes_per_image"] == round(sum(written.values()) / 24)


def test_random_weights_are_used_only_when_asked_for(tmp_path, monkeypatch, caplog):
    from lavis_lite.projects.blip.capfilt.worker import load
    from lavis_lite.registry import cards
    from lavis_lite.registry.component import ModelComponent

    monkeypatch.setattr(cards, "released_weights", lambda *_: pytest.fail("asked for weights"))
    component = cards.whole(ModelComponent("blip_caption", {}, type="tiny", checkpoint="random"))
    first, again, other = (load(component, "captioner", seed) for seed in (0, 0, 1))
    name, weight = next(iter(first.named_parameters()))
    assert torch.equal(weight, again.get_parameter(name))
    assert not torch.equal(weight, other.get_parameter(name))
    assert caplog.text == ""


def test_images_are_decoded_and_encoded_once_and_texts_come_sorted_by_length(load, monkeypatch):
    config = load("out", "captioner.generate.num_captions=3", "data.batch_size=8")
    toy = registry.get("model", "toy_filter")
    rows = registry.get("dataset", "toy_pairs")
    seen = {"encoded": 0, "decoded": 0}
    lengths = []
    encode, match, row = toy.encode_image, toy.match, rows._row

    def encoding(self, image):
        seen["encoded"] += len(image)
        return encode(self, image)

    def matching(self, tokens, text):
        lengths.append([len(one) for one in text])
        return match(self, tokens, text)

    def reading(self, number):
        seen["decoded"] += 1
        return row(self, number)

    monkeypatch.setattr(toy, "encode_image", encoding)
    monkeypatch.setattr(toy, "match", matching)
    monkeypatch.setattr(rows, "_row", reading)
    runners.run(config)
    assert seen == {"encoded": 24, "decoded": 24}
    # A batch of 8 images has up to 32 different texts, judged 8 at a time, the shortest first.
    assert all(len(one) <= 8 for one in lengths)
    assert len(lengths) > 6
    by_images = [[]]
    for part in lengths:
        if by_images[-1] and part[0] < by_images[-1][-1]:
            by_images.append([])
        by_images[-1] += part
    assert len(by_images) == 3
    assert all(one == sorted(one) for one in by_images)


def test_a_model_of_another_project_can_be_the_filter(capfilt, records):
    folder = capfilt("out", "filter={name: clip, type: tiny, score: itc, keep_fraction: 0.5}")
    scores = [r["scores"]["web"] for r in records(folder)]
    assert len(set(scores)) > 12
    assert all(-1 <= score <= 1 for score in scores)
    stats = stats_of(folder)
    assert stats["web"]["kept"] + stats["synthetic"]["kept"] == 24
