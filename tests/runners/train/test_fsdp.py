"""FSDP2: what DDP computes, from divided weights; checkpoints of the one load in the other."""

from __future__ import annotations

import shutil

import pytest
import torch
from toy_runs import records, run, weights
from two_processes import run_on_two_processes

from lavis_lite import config, distributed
from lavis_lite.errors import ConfigError
from lavis_lite.models.zoo import create_model
from lavis_lite.runners.train.fsdp import Sharded, sharding_units
from lavis_lite.runners.train.loss_module import LossModule
from lavis_lite.runners.train.runner import TrainRunner

STEP = "checkpoints/step-0000000"

# What may get into each other's way: layers that run again, twice a step, of which one is frozen
# whole and others in part; and a parameter without dimensions that is.
SWITCHES = [
    "evaluate=[]",
    "optim.accumulate=2",
    "run.gradient_checkpointing={vision: -1, text: -1}",
]
BLIP = [
    *SWITCHES,
    "optim.freeze=[visual_encoder.blocks.0.*, '*.attention.self.query.*', temp]",
    "model.text.dropout=0.1",
]
CLIP = [*SWITCHES, "optim.freeze=[visual_encoder.blocks.0.*, '*.attn.*', logit_scale]"]


def pretraining(folder, how="ddp", *overrides):
    """BLIP's whole pre-training at the smallest size: three losses, momentum copy, queue."""
    return config.load_and_bind(
        "blip/pretrain_scenes.yaml",
        [
            "model.type=tiny",
            "model.text.dropout=0.0",
            "model.losses.itc.queue_size=16",
            "data.train=[{name: scenes, split: human, size: 20}]",
            "data.batch_size=2",
            "data.num_workers=0",
            "evaluate=[{name: retrieval, data: {name: scenes, split: test, size: 4}, top_k: 2}]",
            f"run={{output_dir: {folder}, max_steps: 2, log_every: 1, checkpoint_every: 1}}",
            f"run.parallel={how}",
            "run.device=cpu",
            # Steps large enough to tell apart, but not where a gradient is nothing but rounding.
            "optim={lr: 0.01, warmup_steps: 0, eps: 1e-3, clip_norm: 1.0}",
            "model.momentum=0.5",
            *overrides,
        ],
    )


def contrast(folder, how, *overrides):
    """CLIP at the smallest size, its batch encoded in chunks of a gradient cache."""
    return config.load_and_bind(
        "clip/pretrain_scenes.yaml",
        [
            "model.type=tiny",
            "model.gradient_cache=2",
            "data.train=[{name: scenes, split: human, size: 20}]",
            "data.batch_size=3",
            "data.num_workers=0",
            "evaluate=[]",
            f"run={{output_dir: {folder}, max_steps: 2, log_every: 1, checkpoint_every: 1}}",
            f"run.parallel={how}",
            "run.device=cpu",
            "optim={lr: 0.01, warmup_steps: 0, eps: 1e-3, clip_norm: 1.0}",
            *overrides,
        ],
    )


def assert_same(one, other):
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    for mine, its in zip(records(one), records(other), strict=True):
        assert mine.keys() == its.keys()
        assert mine.pop("evaluate", "") == its.pop("evaluate", "")
        assert mine == pytest.approx(its, rel=1e-4)


def assert_interchangeable(made, folder, overrides):
    """Both ways come to the same, and from the first's step 1 the second goes on to the same."""
    for how in ("ddp", "fsdp"):
        run_on_two_processes(run, made(folder / how, how, *overrides), timeout=200)
    assert_same(folder / "fsdp", folder / "ddp")
    for first, then in (("ddp", "fsdp"), ("fsdp", "ddp")):
        mixed = folder / f"{first}_{then}"
        shutil.copytree(folder / first, mixed)
        shutil.rmtree(mixed / f"{STEP}2")
        (mixed / "complete.json").unlink()
        run_on_two_processes(run, made(mixed, then, *overrides), timeout=200)
        assert_same(mixed, folder / "ddp")


@pytest.mark.slow
def test_sharded_training_equals_ddp_and_either_goes_on_with_the_others_checkpoint(tmp_path):
    assert_interchangeable(pretraining, tmp_path, [])


@pytest.mark.slow
@pytest.mark.parametrize(("made", "switches"), [(pretraining, BLIP), (contrast, CLIP)])
def test_with_every_switch_at_once_sharded_training_equals_ddp(tmp_path, made, switches):
    assert_interchangeable(made, tmp_path, switches)


def parts_held():
    """Elements that this process's optimizer moves, those of the model, and how it ended up."""
    torch.manual_seed(0)
    model = create_model("blip_pretrain", "tiny")
    count = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sharded = Sharded(LossModule(model), optimizer)
    held = sum(p.numel() for p in optimizer.param_groups[0]["params"])
    after = sharded.model_state()
    same = before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    tied = after["text_encoder.embeddings.word_embeddings.weight"].data_ptr() == (
        after["text_decoder.cls.predictions.decoder.weight"].data_ptr()
    )
    with sharded.whole(), torch.no_grad():
        image = torch.zeros(1 + distributed.rank(), 3, model.image_size, model.image_size)
        for _ in range(1 + distributed.rank()):  # not as often on every process
            assert model.encode_image(image).isfinite().all()
    return held, count, same, tied


def test_a_process_holds_its_part_and_can_have_the_whole():
    for held, count, same, tied in run_on_two_processes(parts_held, timeout=120):
        assert held == pytest.approx(count / 2, rel=0.02)
        assert same
        assert tied


def test_layers_are_gathered_one_by_one_those_that_towers_share_once():
    model = create_model("blip_pretrain", "tiny")
    units = [part for unit in sharding_units(model) for part in unit]
    assert len(units) == len(set(units))
    assert model.visual_encoder.blocks[0] in units
    assert model.text_decoder.bert.encoder.layer[1].attention in units
    assert model.text_encoder.encoder.layer[1].output in units


def test_what_fsdp_does_not_do_is_refused(tmp_path):
    overrides = ["optim.ema_decay=0.9", "run.precision=fp16", "run.compile=true"]
    with pytest.raises(ConfigError) as refused:
        TrainRunner(pretraining(tmp_path, "fsdp", *overrides, "optim.lora={rank: 2}"))
    for key in ("optim.ema_decay", "optim.lora", "run.precision: fp16", "run.compile"):
        assert f"fsdp does not go with {key}" in str(refused.value)
    TrainRunner(pretraining(tmp_path, "ddp", *overrides))
