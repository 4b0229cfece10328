"""Training of the first stage: two processes equal one on the joined batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from two_processes import run_on_two_processes

from lavis_lite import create_model, distributed
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.runners.train.loss_module import LossModule, parallelize

TEXTS = ["a red square", "two circles above a cross", "a cross", "a blue star", "a star", "red"]
COUNT = len(TEXTS)


def step(parts: list[int]) -> dict[str, Any]:
    """Losses and gradients of one step, under DDP where there are several processes."""
    torch.manual_seed(5)
    model: Any = create_model("blip2", "tiny", text={"dropout": 0.0})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    image = torch.randn(COUNT, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    samples: dict[str, Any] = {"image": image, "text_input": TEXTS}
    samples["image_id"] = torch.tensor([0, 1, 2, 3, 4, 4])
    start = sum(parts[: distributed.rank()])
    own = slice(start, start + parts[distributed.rank()])
    batch = {key: value[own] for key, value in samples.items()}, StepInfo()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad])
    losses = parallelize(LossModule(model), lambda: batch, optimizer)
    found = losses(*batch)
    found["loss"].backward()
    means = {
        name: distributed.all_reduce(loss.detach()).item() / distributed.world_size()
        for name, loss in found.items()
        if isinstance(loss, Tensor)
    }
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    return {"losses": means, "gradients": gradients}


@pytest.mark.parametrize("parts", [[3, 3], [4, 2]])
def test_two_processes_equal_one_on_the_joined_batch(parts: list[int]) -> None:
    one = step([COUNT])
    assert {"Qformer.query_tokens", "ln_vision.weight", "temp"} <= one["gradients"].keys()
    for two in run_on_two_processes(step, parts):
        assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
        assert two["gradients"].keys() == one["gradients"].keys()
        for key, gradient in one["gradients"].items():
            torch.testing.assert_close(
                two["gradients"][key],
                gradient,
                atol=2e-4,
                rtol=1e-3,
                msg=lambda m, k=key: f"{k}: {m}",
            )
