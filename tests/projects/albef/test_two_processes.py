"""Two processes compute what one computes on the joined batch: contrast, matching, hidden words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from two_processes import run_on_two_processes

from lavis_lite import create_model, distributed

TEXTS = ["a cross", "two red squares above a large blue circle", "nothing", "a star on grey"]
LOSSES = {"itc": {"queue_size": 6}, "mlm": {"probability": 0.5}}


def one_step(parts: list[int]) -> dict[str, Any]:
    """Losses and gradients of a step, averaged over processes; each takes its part of the batch."""
    torch.manual_seed(0)
    model = create_model("albef_pretrain", "tiny", text={"dropout": 0.0}, losses=LOSSES)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    start = sum(parts[: distributed.rank()])
    own = slice(start, start + parts[distributed.rank()])
    image = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    samples = {"image": image[own], "text_input": TEXTS[own], "image_id": torch.arange(4)[own]}
    output = model({**samples, "seed": 7, "step": 3, "progress": 1.0})
    output.loss.backward()
    gradients = {
        name: mean(parameter.grad)
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {"losses": {k: mean(v).item() for k, v in output.losses.items()}, **gradients}


def mean(value: Tensor) -> Tensor:
    return distributed.all_reduce(value.detach()) / distributed.world_size()


def test_two_processes_equal_one_on_the_joined_batch() -> None:
    one = one_step([4])
    losses = one.pop("losses")
    assert losses.keys() == {"itc", "itm", "mlm"}
    for two in run_on_two_processes(one_step, [1, 3]):  # so that texts are padded differently
        assert two.pop("losses") == pytest.approx(losses, abs=1e-5)
        assert two.keys() == one.keys()
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, atol=2e-6, rtol=1e-3, msg=key)
