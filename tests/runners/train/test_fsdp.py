"""FSDP2: what DDP computes, from divided weights; checkpoints of the one load in the other."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn
from toy_runs import records, run, weights
from two_processes import run_on_two_processes

from lavis_lite import config, distributed
from lavis_lite.errors import ConfigError
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.models.zoo import create_model
from lavis_lite.modules.layers.ema import local
from lavis_lite.modules.output import ModelOutput
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
        for key in ("evaluate", "counts"):
            assert mine.pop(key, None) == its.pop(key, None)
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
    held = sum(local(p).numel() for p in optimizer.param_groups[0]["params"])
    after = sharded.model_state()
    same = tied = not after  # the others hold nothing
    if distributed.is_main():
        same = before.keys() == after.keys()
        same = same and all(torch.equal(before[n], after[n]) for n in before)
        tied = after["text_encoder.embeddings.word_embeddings.weight"].data_ptr() == (
            after["text_decoder.cls.predictions.decoder.weight"].data_ptr()
        )
    with sharded.whole(), torch.no_grad():
        image = torch.zeros(1 + distributed.rank(), 3, model.image_size, model.image_size)
        for _ in range(1 + distributed.rank()):  # not as often on every process
            assert model.encode_image(image).isfinite().all()
    return held, count, same, tied


class PartlyTrained(nn.Module):
    """A matrix and a number that are trained, and a matrix that never gets a gradient."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(5, 3), nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, samples):
        return ModelOutput({"fit": (self.used(samples["image"]) * self.scale).square().mean()})


def step(losses, optimizer, clip_norm):
    samples = {"image": torch.ones(2, 5) * (1 + distributed.rank())}
    losses(samples, StepInfo())["loss"].backward()
    if isinstance(losses, Sharded):
        losses.average_kept_gradients()
    nn.utils.clip_grad_norm_([p for p in losses.parameters() if p.grad is not None], clip_norm)
    optimizer.step()
    optimizer.zero_grad()


def saved_and_loaded():
    """Optimizer state saved after a step whole, then divided, loaded into another, saved again."""
    found = []
    for state in ("none", "some"):
        torch.manual_seed(0)
        losses = LossModule(PartlyTrained())
        optimizer = torch.optim.AdamW(losses.parameters(), lr=0.1, betas=(0.8, 0.9))
        if state == "some":
            step(losses, optimizer, 1.0)
        before = copy.deepcopy(optimizer.state_dict())
        sharded = Sharded(losses, optimizer)
        after = copy.deepcopy(sharded.optimizer_state())
        step(sharded, optimizer, 1.0)
        found.append((before, after, sorted(sharded.optimizer_state()["state"])))
    return found


def assert_equal_state(one, other):
    assert one["param_groups"] == other["param_groups"]
    assert one["state"].keys() == other["state"].keys()
    for number, state in one["state"].items():
        assert state.keys() == other["state"][number].keys()
        assert all(torch.equal(state[key], other["state"][number][key]) for key in state)


def test_optimizer_state_is_that_of_one_process_also_where_a_parameter_has_none():
    (main, _) = run_on_two_processes(saved_and_loaded, timeout=120)
    for before, after, _ in main:
        assert_equal_state(before, after)
    # scale, used.weight and used.bias; the unused ones have no state after a step either.
    assert [numbers for *_, numbers in main] == [[0, 1, 2], [0, 1, 2]]


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
