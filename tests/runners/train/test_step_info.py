"""A model is told where the run stands, and by whom its momentum copy is moved."""

from __future__ import annotations

import pytest
import torch
from bench_models import batch, bench_model
from torch import Tensor, nn

from lavis_lite.errors import ConfigError
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.modules.output import ModelOutput
from lavis_lite.projects.blip.retrieval import BlipRetrieval
from lavis_lite.runners.train.loss_module import LossModule


class MeanOfImages(nn.Module):
    """A model that needs to know nothing but its batch."""

    def forward(self, samples: dict[str, Tensor]) -> ModelOutput:
        return ModelOutput({"mean": samples["image"].mean()})


class LosesTheStep(BlipRetrieval):
    """A model that keeps the step to itself."""

    def forward(self, samples: dict[str, Tensor]) -> ModelOutput:  # type: ignore[override]
        return super().forward(samples)


class HasACopy(MeanOfImages):
    momentum_pairs = ("head",)


def test_the_losses_of_a_model_draw_from_the_step_that_the_runner_names() -> None:
    module = LossModule(bench_model("blip_retrieval", losses={"itc": None}).eval())
    samples = batch(6)
    with torch.no_grad():
        first, again, other = (module(samples, StepInfo(step=step))["loss"] for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_model_that_does_not_ask_for_the_step_is_called_with_the_batch_alone() -> None:
    losses = LossModule(MeanOfImages())({"image": torch.ones(2, 3)}, StepInfo())
    assert {name: loss.item() for name, loss in losses.items()} == {"loss": 1.0, "loss_mean": 1.0}


def test_a_forward_pass_that_would_lose_the_step_is_refused() -> None:
    model = bench_model("blip_retrieval")
    model.__class__ = LosesTheStep
    with pytest.raises(ConfigError, match=r"LosesTheStep.forward: write `forward\(self, samples"):
        LossModule(model)


def test_a_momentum_copy_that_nobody_could_move_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"give HasACopy the method `update_momentum\(\)`"):
        LossModule(HasACopy())
