"""CapFilt on stored tokens: the records of a run on images, and no image encoded twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lavis_lite import config, runners
from lavis_lite.errors import ConfigError
from lavis_lite.runners.vision_tokens import KeptTokens


def bootstrap(folder, *more, recipe="blip/capfilt_scenes"):
    overrides = [
        "data.source={name: scenes, split: web, size: 20}",
        "runner.shard_size=8",
        "data.batch_size=4",
        "run.prepack=false",
        "run.report=null",
        f"run.output_dir={folder}",
        *more,
    ]
    runners.run(config.load_and_bind(recipe, overrides))
    return records_of(folder)


def records_of(folder: Path) -> list[dict]:
    files = sorted(Path(folder, "shards").glob("*.jsonl"))
    lines = (line for file in files for line in file.read_text("utf-8").splitlines())
    return [json.loads(line) for line in lines]


def stored(folder, dtype="fp32", **more):
    options = {"folder": folder, "dtype": dtype, **more}
    return [f"data.vision_tokens.{name}={value}" for name, value in options.items()]


@pytest.fixture
def encoded(monkeypatch):
    """How many images each call of an encoder had, but for the one that asks for its shape."""
    calls = []
    encode = KeptTokens.encode

    def counted(self, pixels):
        calls.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(KeptTokens, "encode", counted)
    return calls


def test_records_are_those_of_a_run_on_images_and_each_model_encodes_each_image_once(
    tmp_path, encoded
):
    live = bootstrap(tmp_path / "live")
    assert len(live) == 20
    assert encoded == []
    assert bootstrap(tmp_path / "kept", *stored(tmp_path / "tokens")) == live
    assert sum(encoded) == 2 * (20 + 1)
    assert sorted(p.name for p in (tmp_path / "tokens").iterdir()) == ["captioner", "filter"]
    encoded.clear()
    again = bootstrap(tmp_path / "again", *stored(tmp_path / "tokens"), "filter.threshold=0.9")
    assert sum(encoded) == 2
    assert [one["synthetic"] for one in again] == [one["synthetic"] for one in live]


def test_models_with_equal_encoders_share_their_tokens(tmp_path, encoded):
    same = "[{name: blip_caption, type: scenes, called: one}, "
    same += "{name: blip_caption, type: scenes, called: two, generate: {num_beams: 2}}]"
    both = [f"captioner={same}", "filter=null"]
    bootstrap(tmp_path / "kept", *both, *stored(tmp_path / "tokens"))
    assert sum(encoded) == 20 + 1


def test_scores_that_are_added_later_are_those_of_images(tmp_path, encoded):
    bootstrap(tmp_path / "run")
    found = []
    for name, more in (("live", []), ("kept", stored(tmp_path / "tokens"))):
        overrides = [
            f"records={tmp_path / 'run'}",
            f"scorers=[{{name: itc, called: {name}, model: {{name: clip, type: scenes}}}}]",
            "data.batch_size=4",
            "run.prepack=false",
            f"run.output_dir={tmp_path / name}",
            *more,
        ]
        runners.run(config.load_and_bind("blip/capfilt_add_scores_scenes", overrides))
        added = records_of(tmp_path / "run" / "scores" / name)
        found.append([one["text_scores"][name] for one in added])
    assert found[0] == found[1]
    assert len(found[0]) == 20
    assert sum(encoded) == 20 + 1


def test_an_image_that_cannot_be_read_is_set_aside_as_without_stored_tokens(tmp_path):
    lines = [{"image": f"{n}.png", "caption": f"a picture of {n}"} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for number in range(6):
        Image.new("RGB", (40, 40), (number * 40, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "5.png").unlink()
    rows = f"data.source={{name: jsonl, path: {tmp_path}/rows.jsonl}}"
    plain = ["data.label=null", "data.right=[]", "run.max_bad_fraction=1", rows]
    live = bootstrap(tmp_path / "live", *plain)
    kept = bootstrap(tmp_path / "kept", *plain, *stored(tmp_path / "tokens"))
    assert kept == live
    reasons = [sorted(quarantined(tmp_path / name)) for name in ("live", "kept")]
    assert reasons[0] == reasons[1]
    assert len(reasons[0]) == 2


def quarantined(folder):
    files = sorted(Path(folder, "shards").glob("*quarantine*"))
    lines = (json.loads(line) for file in files for line in file.read_text().splitlines())
    return [(line["index"], line["reason"].split(":")[0]) for line in lines]


def test_several_crops_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"crops: 3; texts are written about whole images"):
        bootstrap(tmp_path / "kept", *stored(tmp_path / "tokens", crops=3))
