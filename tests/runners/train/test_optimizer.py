"""Learning rates at hand-computed points, and which parameters decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lavis_lite import create_model
from lavis_lite.config.schema import OptimConfig
from lavis_lite.errors import ConfigError
from lavis_lite.models.base import VisionLanguageModel
from lavis_lite.runners.train.optimizer import (
    build_optimizer,
    learning_rate,
    parameter_groups,
    set_learning_rate,
)


def rates(steps, max_steps=100, **options):
    schedule = learning_rate(OptimConfig(**options), max_steps)
    return [schedule(step) for step in steps]


def test_warm_up_is_linear_and_reaches_the_peak_at_its_end():
    options = {"lr": 1.0, "warmup_steps": 10, "schedule": "constant"}
    found = rates([0, 4, 9, 10], warmup_lr=0.2, **options)
    assert found == pytest.approx([0.28, 0.6, 1.0, 1.0])
    assert rates([0, 9], **options) == pytest.approx([0.1, 1.0])  # no step at the rate 0


def test_without_warm_up_the_first_step_has_the_peak():
    assert rates([0], lr=1.0) == [1.0]


def test_cosine_is_halfway_between_peak_and_end_in_the_middle_of_what_follows_the_warm_up():
    found = rates([20, 40, 60, 100], lr=1.0, min_lr=0.2, warmup_steps=20)
    # After 20 of 80 steps: 0.2 + 0.4 * (1 + cos(pi / 4)).
    assert found == pytest.approx([1.0, 0.2 + 0.4 * 1.70710678, 0.6, 0.2])


def test_step_decay_multiplies_at_each_boundary_counted_from_the_start_of_the_run():
    options = {"lr": 1.0, "schedule": "step", "decay_rate": 0.5, "decay_steps": 10, "min_lr": 0.2}
    assert rates([0, 9, 10, 19, 20, 30], **options) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.2]
    assert rates([4, 12], warmup_steps=10, **options) == pytest.approx([0.5, 0.5])


def test_a_warm_up_longer_than_the_run_just_rises():
    assert rates([0, 9], max_steps=10, lr=1.0, warmup_steps=20) == pytest.approx([0.05, 0.5])


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.temperature = nn.Parameter(torch.ones(()))
        self.frozen = nn.Linear(3, 2).requires_grad_(False)
        self.tied = self.linear


def test_matrices_decay_and_the_rest_does_not_each_parameter_once():
    model = Small()
    decaying, others = parameter_groups(model, 0.05)
    assert decaying["weight_decay"] == 0.05
    assert others["weight_decay"] == 0.0
    assert {id(p) for p in decaying["params"]} == {
        id(model.embedding.weight),
        id(model.linear.weight),
    }
    assert len(others["params"]) == 4  # two biases, the norm's weight, the temperature


class LayerDecay(Small):
    def get_optimizer_params(self, weight_decay, lr_scale=1.0):
        return [
            {"params": [self.linear.weight], "weight_decay": weight_decay, "lr_scale": 0.1},
            {"params": [self.linear.bias], "weight_decay": 0.0},
            {"params": [], "weight_decay": 0.0},
        ]


def test_a_model_may_group_and_scale_its_parameters_itself():
    optimizer = build_optimizer(LayerDecay(), OptimConfig(lr=1.0, weight_decay=0.3))
    set_learning_rate(optimizer, 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.5]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.3, 0.0]


def test_the_fused_kernel_computes_what_the_plain_loop_computes():
    states = []
    for fused in (None, False):
        torch.manual_seed(1)
        model = Small()
        optimizer = build_optimizer(model, OptimConfig(lr=0.1))
        assert optimizer.defaults["fused"]
        if fused is False:
            optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=0.1, foreach=False)
        for _ in range(3):
            model.norm(model.linear(model.embedding.weight)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        states.append(model.state_dict())
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-5, atol=1e-6)


class Composed(VisionLanguageModel):
    def __init__(self):
        super().__init__()
        self.inner = Small()


def test_a_composed_model_and_any_other_are_grouped_by_one_rule():
    model = Composed()
    named = {id(p): name for name, p in model.named_parameters()}
    groups = [parameter_groups(m, 0.05) for m in (model, model.inner)]
    names = [[[named[id(p)] for p in group.pop("params")] for group in g] for g in groups]
    assert names[0] == names[1]
    assert groups[0] == groups[1]


def rate_by_name(model, **options):
    optimizer = build_optimizer(model, OptimConfig(lr=1.0, **options))
    set_learning_rate(optimizer, 0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}


def test_layer_decay_lowers_the_rate_once_per_layer_from_a_towers_end():
    model = create_model("blip_pretrain", "tiny")
    rates = rate_by_name(model, layer_decay=0.5)
    assert rates.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    image, text = "visual_encoder", "text_encoder"
    deepest = 0.5 * 0.5**4  # three layers, and the embeddings below them
    assert rates[f"{image}.pos_embed"] == rates[f"{image}.patch_embed.proj.bias"] == deepest
    assert rates[f"{text}.embeddings.word_embeddings.weight"] == deepest
    blocks = [rates[f"{image}.blocks.{n}.attn.qkv.weight"] for n in range(3)]
    assert blocks == [0.5 * 0.5**depth for depth in (3, 2, 1)]
    for tower in (f"{text}.encoder", "text_decoder.bert.encoder"):
        own = [rates[f"{tower}.layer.{n}.attention.self.query.bias"] for n in range(3)]
        assert own == blocks
    tops = [f"{image}.norm.weight", "temp", "itm_head.weight", "vision_proj.bias"]
    assert [rates[name] for name in tops] == [0.5] * 4
    assert rates["text_decoder.cls.predictions.transform.dense.weight"] == 0.5


def test_layer_decay_keeps_weight_decay_and_each_parameter_once():
    model = create_model("blip_pretrain", "tiny")
    plain = parameter_groups(model, 0.05)
    divided = parameter_groups(model, 0.05, layer_decay=0.9)
    for decay in (0.05, 0.0):
        sets = [
            sorted(id(p) for g in groups if g["weight_decay"] == decay for p in g["params"])
            for groups in (plain, divided)
        ]
        assert sets[0] == sets[1]
    assert len(divided) == 2 * 5  # depths 0 to 4, with and without decay


def test_a_models_own_scale_and_layer_decay_multiply():
    class Scaled(Composed):
        vision_towers = ("inner",)

        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Sequential(Small(), Small()), nn.Linear(2, 2))

        def get_optimizer_params(self, weight_decay, lr_scale=1.0):
            return [{"params": list(self.parameters()), "weight_decay": 0.0, "lr_scale": 0.1}]

    rates = rate_by_name(Scaled(), layer_decay=0.5)
    assert rates["inner.0.0.linear.weight"] == pytest.approx(0.5 * 0.1 * 0.25)
    assert rates["inner.1.weight"] == pytest.approx(0.5 * 0.1)
    assert "inner.0.0.frozen.weight" not in rates


def test_layer_decay_without_layers_is_an_error():
    with pytest.raises(ConfigError, match=r"optim.layer_decay: Small names no towers"):
        parameter_groups(Small(), 0.05, layer_decay=0.9)
    model = create_model("blip_caption", "tiny")
    model.visual_encoder = nn.Linear(3, 2)
    with pytest.raises(ConfigError, match=r"optim.layer_decay: Linear has no list of layers"):
        parameter_groups(model, 0.05, layer_decay=0.9)
