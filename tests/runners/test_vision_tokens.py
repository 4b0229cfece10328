"""Tokens of a frozen encoder in place of images: the same numbers, computed once, no mix-ups."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from two_processes import run_on_two_processes

from lavis_lite import config, create_model, runners
from lavis_lite.config.schema import VisionTokensConfig
from lavis_lite.data.image_processors import BlipImageTrain
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.models.frozen_vision import demand_frozen, share_with_momentum
from lavis_lite.modules.vision_tokens import VisionTokens
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.train import loop
from lavis_lite.runners.train.freeze import freeze
from lavis_lite.runners.vision_tokens import KeptTokens

FORK = multiprocessing.get_context("fork")
EVAL = {"name": "blip_image_eval", "image_size": 32}
TRAIN = {"name": "blip_image_train", "image_size": 32}
VISION = {"name": "timm/vit_base_patch16_224", "embed_dim": 16, "depth": 1, "num_heads": 2}
BLIP = [
    "model.type=tiny",
    "model.image_size=32",
    "model.vision={name: timm/vit_base_patch16_224, embed_dim: 16, depth: 1, num_heads: 2}",
    "model.text={name: med, width: 16, depth: 1, num_heads: 2, mlp_width: 32, dropout: 0.0}",
    "model.losses.itc={name: itc, queue_size: 16}",
]
CLIP = ["model.type=tiny"]
SCENES = "scenes, split: human, size: 24, image_size: 32"
FIGURES = ["step", "loss", "grad_norm"]


def settings(folder, recipe="blip/pretrain_scenes", model=BLIP, steps=6, **changes):
    """A short run with a frozen encoder; ``changes`` by dotted key, ``__`` for the dot."""
    overrides = [
        *model,
        f"data.train=[{{name: {SCENES}}}]",
        "data.batch_size=8",
        "data.num_workers=0",
        "evaluate=[]",
        "optim.freeze=[visual_encoder]",
        f"run.output_dir={folder}",
        f"run.max_steps={steps}",
        "run.checkpoint_every=2",
        "run.log_every=1",
        "run.loggers=[jsonl]",
    ]
    overrides += [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    return config.load_and_bind(recipe, overrides)


def stored(folder, **options):
    """The keys that keep tokens in a folder."""
    options = {"folder": folder, "dtype": "fp32", **options}
    return {f"data__vision_tokens__{name}": value for name, value in options.items()}


def figures(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: line[k] for k in line if k in FIGURES or k.startswith("loss_")} for line in lines]


# ---- the same numbers


@pytest.mark.parametrize(
    ("recipe", "model", "freeze"),
    [
        ("blip/pretrain_scenes", BLIP, "[visual_encoder]"),
        ("clip/pretrain_scenes", CLIP, "[visual_encoder]"),
        ("albef/pretrain_scenes", [], "[visual_encoder]"),
        ("blip2/pretrain_stage1_scenes", [], "[]"),  # frozen by the model; a norm after it trains
    ],
)
def test_losses_with_stored_tokens_are_those_of_images_to_the_bit(tmp_path, recipe, model, freeze):
    steps, frozen = 3, {"optim__freeze": freeze}
    kept = {**frozen, **stored(tmp_path / "tokens")}
    runners.run(settings(tmp_path / "live", recipe, model, steps, **frozen))
    runners.run(settings(tmp_path / "kept", recipe, model, steps, **kept))
    assert figures(tmp_path / "kept") == figures(tmp_path / "live")
    assert len(figures(tmp_path / "live")) == steps


def test_images_that_are_read_by_twos_with_a_text_are_stored_too(tmp_path):
    data = "[{name: scenes_nlvr, split: human, size: 16, image_size: 64}]"
    both = {"data__train": data, "model__type": "tiny"}
    runners.run(settings(tmp_path / "live", "blip/nlvr_scenes", [], 2, **both))
    kept = {**both, **stored(tmp_path / "tokens")}
    runners.run(settings(tmp_path / "kept", "blip/nlvr_scenes", [], 2, **kept))
    assert figures(tmp_path / "kept") == figures(tmp_path / "live")


def test_half_precision_on_disk_changes_losses_by_less_than_a_thousandth(tmp_path):
    runners.run(settings(tmp_path / "live", steps=2))
    runners.run(settings(tmp_path / "half", steps=2, **stored(tmp_path / "tokens", dtype="fp16")))
    for half, live in zip(figures(tmp_path / "half"), figures(tmp_path / "live"), strict=True):
        assert half != live
        assert half["loss"] == pytest.approx(live["loss"], rel=1e-3)


def test_figures_of_an_evaluation_are_the_same(tmp_path):
    data = "{name: scenes, split: test, size: 12, image_size: 32}"
    listed = f"[{{name: retrieval, top_k: 4, data: {data}}}, {{name: itm, data: {data}}}]"
    changes = {"evaluate": listed, "model__type": "tiny", "model__checkpoint": "null"}
    found = [
        runners.run(
            config.load_and_bind(
                "blip/evaluate_scenes",
                [
                    *BLIP,
                    *(f"{k.replace('__', '.')}={v}" for k, v in (changes | more).items()),
                    f"run.output_dir={tmp_path / name}",
                    "model.name=blip_pretrain",
                    "data.batch_size=4",
                    "data.num_workers=0",
                    "run.loggers=[jsonl]",
                ],
            )
        )["metrics"]
        for name, more in (("live", {}), ("kept", stored(tmp_path / "tokens")))
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 5
    assert (tmp_path / "tokens" / "eval" / "tokens.bin").stat().st_size == 12 * 5 * 16 * 4


# ---- resuming


def begin(folder, options, stop):
    """The first steps, ended by a signal that no process can catch."""
    train_step = loop.train_step

    def killed(training, batches):
        if training.step == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(training, batches)

    loop.train_step = killed  # this process ends with it
    runners.run(settings(folder, **options))


def test_training_on_random_crops_resumes_to_the_bit(tmp_path):
    crops = {"data__processors__image__train__name": "blip_image_train"}
    crops |= stored(tmp_path / "tokens", crops=3)
    runners.run(settings(tmp_path / "straight", **crops))
    process = FORK.Process(target=begin, args=(tmp_path / "killed", crops, 3))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    runners.run(settings(tmp_path / "killed", **crops))
    assert figures(tmp_path / "killed") == figures(tmp_path / "straight")
    assert len(figures(tmp_path / "straight")) == 6


def test_loader_processes_read_the_same_tokens(tmp_path):
    runners.run(settings(tmp_path / "none", steps=3, **stored(tmp_path / "tokens")))
    ahead = {**stored(tmp_path / "others"), "data__num_workers": 2}
    runners.run(settings(tmp_path / "two", steps=3, **ahead))
    assert figures(tmp_path / "none") == figures(tmp_path / "two")


# ---- computing


class Photos:
    """Pictures of noise, some of which cannot be read."""

    name = "photos"

    def __init__(self, size, bad=()):
        self.size, self.bad = size, set(bad)

    def __len__(self):
        return self.size

    def decode(self, number):
        if number in self.bad:
            raise DataError("broken file")
        pixels = numpy.random.default_rng(number).integers(0, 256, (40, 40, 3))
        return Image.fromarray(pixels.astype(numpy.uint8))

    def __getitem__(self, index):
        row = {"text_input": f"number {index}", "image_id": index, "key": f"{index}"}
        return {**row, "image": bytes([index])}


class FromByte(Photos):
    """The same, decoded of a byte."""

    def decode(self, data):
        return super().decode(data[0])


class Counting(KeptTokens):
    """Notes in a file how many images it encodes, and may be slow."""

    notes: Path
    seconds = 0.0

    def encode(self, pixels):
        if len(pixels) > 1 or self._announced:
            with self.notes.open("a") as file:
                file.write(f"{len(pixels)}\n")
        self._announced = True
        time.sleep(self.seconds)
        return super().encode(pixels)

    _announced = False


def model_with(seed=0, **changes):
    torch.manual_seed(seed)
    model = create_model("blip_caption", "tiny", image_size=32, vision={**VISION, **changes})
    freeze(model, ["visual_encoder"])
    return model


def keep(folder, datasets, *, model=None, processor=EVAL, crops=1, seconds=0.0, **options):
    """Fill a store with the images of datasets; the images, and the file of notes."""
    options = VisionTokensConfig(
        **{"folder": str(folder), "dtype": "fp32", "crops": crops}, **options
    )
    kept = Counting(
        options,
        model or model_with(),
        Precision("fp32", torch.device("cpu")),
        batch_size=4,
        num_workers=0,
    )
    kept.notes, kept.seconds = Path(f"{folder}.notes"), seconds
    images = kept.images("train", datasets, processor, {}, crops)
    kept.fill()
    return images


def encoded(folder):
    """How many images were encoded for a store, by all processes."""
    return sum(map(int, Path(f"{folder}.notes").read_text().split()))


def test_every_image_is_encoded_once_for_all_datasets_and_runs(tmp_path):
    keep(tmp_path / "store", [FromByte(10), FromByte(6)])
    assert encoded(tmp_path / "store") == 10
    keep(tmp_path / "store", [FromByte(13)])
    assert encoded(tmp_path / "store") == 13


def test_two_processes_encode_each_image_once_and_both_can_read_it(tmp_path):
    workers = [
        FORK.Process(target=fill_and_read, args=(tmp_path / "store", 0.05)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert encoded(tmp_path / "store") == 40


def fill_and_read(folder, seconds):
    torch.set_num_threads(1)
    images = keep(folder, [FromByte(40)], seconds=seconds)
    for row in range(40):
        assert images.tokens(images.row(0, row)["image"], 0).shape == (5, 16)


def fill_as_rank(folder):
    fill_and_read(folder, 0.01)


def test_the_ranks_of_a_run_divide_the_work(tmp_path):
    run_on_two_processes(fill_as_rank, tmp_path / "store")
    assert encoded(tmp_path / "store") == 40


def test_a_kill_loses_nothing_that_was_written_and_computes_nothing_twice(tmp_path):
    folder = tmp_path / "store"
    process = FORK.Process(target=fill_and_read, args=(folder, 0.1))
    process.start()
    while not Path(f"{folder}.notes").exists() or encoded(folder) < 12:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    fill_and_read(folder, 0.0)
    # The batch of four that was in the encoder when the kill came is computed again, no other.
    assert encoded(folder) <= 40 + 4


def test_an_image_that_cannot_be_read_is_a_bad_sample_and_not_a_bad_store(tmp_path):
    images = keep(tmp_path / "store", [FromByte(6, bad=[2])])
    with pytest.raises(DataError, match="broken file"):
        images.tokens(images.row(0, 2)["image"], 0)
    assert isinstance(images.tokens(images.row(0, 3)["image"], 0), VisionTokens)


def test_crops_differ_and_are_drawn_by_seed_number_and_image_alone(tmp_path):
    model, rows = model_with(), FromByte(6)
    images = keep(tmp_path / "a", [rows], model=model, processor=TRAIN, crops=3)
    crops = [images.tokens(images.row(0, 4)["image"], k).plain() for k in range(3)]
    assert not torch.equal(crops[0], crops[1])
    others = keep(tmp_path / "b", [FromByte(2), rows], model=model, processor=TRAIN, crops=3)
    assert all(
        torch.equal(others.tokens(others.row(1, 4)["image"], k).plain(), crop)
        for k, crop in enumerate(crops)
    )
    anew = keep(tmp_path / "c", [rows], model=model, processor=TRAIN, crops=3, seed=1)
    assert not torch.equal(anew.tokens(anew.row(0, 4)["image"], 0).plain(), crops[0])
    assert BlipImageTrain(image_size=32).hflip  # so there was something to draw


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": {"seed": 1}}, r'encoder weights: "\w+" was, "\w+" is now'),
        ({"model": {"qkv_bias": False}}, r'encoder layers: "\w+" was, "\w+" is now'),
        ({"processor": {**EVAL, "mean": [0.5, 0.5, 0.5]}}, r'processor: .* "mean"'),
        ({"processor": TRAIN}, "processor: .*blip_image_eval.* was, .*blip_image_train.* is now"),
        ({"seed": 5}, "seed: 0 was, 5 is now"),
    ],
)
def test_another_encoder_or_processor_is_refused_by_name(tmp_path, changes, line):
    keep(tmp_path / "store", [FromByte(2)])
    model = model_with(**changes.pop("model", {}))
    with pytest.raises(ConfigError, match=line) as caught:
        keep(tmp_path / "store", [FromByte(2)], model=model, **changes)
    assert "its tokens are computed anew" in str(caught.value)


def test_crops_of_a_processor_that_does_not_draw_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"crops: 2, but blip_image_eval makes the same .* 1"):
        keep(tmp_path / "store", [FromByte(2)], crops=2)
    assert not (tmp_path / "store" / "train").exists()


def test_damage_ends_a_run_and_is_no_bad_sample(tmp_path):
    runners.run(settings(tmp_path / "one", steps=1, **stored(tmp_path / "tokens")))
    file = tmp_path / "tokens" / "train" / "tokens.bin"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(DataError, match=r"tokens\.bin: damaged at byte .* computed anew"):
        runners.run(settings(tmp_path / "two", steps=1, **stored(tmp_path / "tokens")))


def test_an_encoder_that_trains_is_refused_with_the_way_to_freeze_it(tmp_path):
    training = {**stored(tmp_path / "tokens"), "optim__freeze": "[]"}
    with pytest.raises(ConfigError, match=r"optim\.freeze: \[visual_encoder\]"):
        runners.run(settings(tmp_path / "run", **training))
    partly = create_model("blip_caption", "tiny")
    freeze(partly, ["visual_encoder.blocks"])
    with pytest.raises(ConfigError, match="the vision encoder trains"):
        demand_frozen(partly)
    assert not (tmp_path / "tokens").exists()


def test_a_model_without_a_vision_encoder_is_refused():
    with pytest.raises(ConfigError, match="Linear has no vision encoder"):
        KeptTokens(
            VisionTokensConfig("folder"),
            torch.nn.Linear(2, 2),
            Precision("fp32", torch.device("cpu")),
            batch_size=1,
            num_workers=0,
        )


def test_tokens_of_another_width_are_refused_by_the_model():
    model = create_model("blip_caption", "tiny")
    with pytest.raises(ConfigError, match=r"\(B, N, D\) with D = 64"):
        model.encode_image(VisionTokens.of(torch.zeros(1, 5, 16)))


# ---- the momentum copy


def test_a_momentum_copy_of_a_frozen_encoder_gets_its_weights_and_keeps_them():
    model = create_model("blip_pretrain", "tiny", losses={"itc": {"name": "itc", "queue_size": 8}})
    freeze(model, ["visual_encoder"])
    with torch.no_grad():
        next(model.visual_encoder_m.parameters()).add_(1.0)
    share_with_momentum(model)
    for _ in range(3):
        with torch.no_grad():
            model.text_proj.weight.add_(1.0)
        model.update_momentum()
    state = model.visual_encoder_m.state_dict()
    assert all(torch.equal(state[k], v) for k, v in model.visual_encoder.state_dict().items())
    assert not torch.equal(model.text_proj_m.weight, model.text_proj.weight)
