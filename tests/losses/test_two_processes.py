"""With ``negatives: global`` two processes compute what one computes on the joined batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bench_models import batch, bench_model
from torch import Tensor
from two_processes import run_on_two_processes

from lavis_lite import distributed
from lavis_lite.losses.matching import ImageTextMatching

COUNT, STEPS = 8, 3
Record = dict[str, Any]


def train(parts: list[int], losses: dict[str, Any]) -> list[Record]:
    """Losses, averaged gradients, draws and queues of some SGD steps; this rank's part of a batch.

    Args:
        parts: how many samples each rank takes of the joined batch.
        losses: what the model is trained by.
    """
    model = bench_model("blip_pretrain", losses=losses)
    drawn: list[Tensor] = []
    for loss in model.losses.values():
        if isinstance(loss, ImageTextMatching):
            choose = loss._choose

            def remember(*args: Any, choose: Any = choose) -> tuple[Tensor, Tensor]:
                pair = choose(*args)
                drawn.append(torch.stack(pair, dim=1))
                return pair

            loss._choose = remember  # type: ignore[method-assign]
    start = sum(parts[: distributed.rank()])
    own = slice(start, start + parts[distributed.rank()])
    records = []
    for step in range(STEPS):
        joined = {**batch(COUNT, seed=step), "step": step, "seed": 7, "progress": 1.0}
        joined["image_id"] = torch.tensor([0, 1, 1, 2, 3, 3, 4, 0])
        samples = {k: v[own] if isinstance(v, list | Tensor) else v for k, v in joined.items()}
        output = model(samples)
        output.loss.backward()
        record: Record = {"losses": {}, "gradients": {}, "drawn": [], "queue": {}}
        for name, value in output.losses.items():
            record["losses"][name] = mean(value).item()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                grad = parameter.grad if parameter.grad is not None else 0 * parameter
                record["gradients"][name] = mean(grad)
        if drawn:
            record["drawn"] = distributed.all_gather(drawn.pop()).tolist()
        record["queue"] = {k: v.clone() for k, v in model.named_buffers() if "queue" in k}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter -= 0.05 * record["gradients"][name]
                    parameter.grad = None
        records.append(record)
    return records


def mean(value: Tensor) -> Tensor:
    return distributed.all_reduce(value.detach()) / distributed.world_size()


ALL = {
    "itc": {"queue_size": 12, "same_image_positive": True},
    "itm": {"name": "itm"},
    "lm": {"name": "lm"},
    "nce": {"name": "info_nce"},
}


@pytest.mark.parametrize(
    ("parts", "losses"),
    [
        ([4, 4], ALL),
        ([5, 3], ALL),
        ([4, 4], {"itc": None, "lm": None, "itm": {"negatives": "all"}}),
        ([4, 4], {"itc": {"queue_size": 5}, "lm": None, "itm": {"negatives": "random"}}),
        ([3, 5], {"itc": None, "lm": None}),
    ],
    ids=["hard", "unequal parts", "all pairs", "random, long batch", "itm alone"],
)
def test_two_processes_equal_one_on_the_joined_batch(
    parts: list[int], losses: dict[str, Any]
) -> None:
    one = train([COUNT], losses)
    for two in run_on_two_processes(train, parts, losses):
        for a, b in zip(one, two, strict=True):
            assert a["losses"] == pytest.approx(b["losses"], rel=1e-6, abs=1e-6)
            assert a["drawn"] == b["drawn"]
            for key, value in a["queue"].items():
                torch.testing.assert_close(b["queue"][key], value, atol=1e-6, rtol=0)
            for key, value in a["gradients"].items():
                torch.testing.assert_close(b["gradients"][key], value, atol=1e-6, rtol=1e-4)


def test_local_negatives_stay_on_their_process_but_the_queue_is_everybody_s() -> None:
    local = {"itc": {"negatives": "local"}, "itm": {"scope": "local"}, "lm": None}
    first, second = (ranks[0] for ranks in run_on_two_processes(train, [4, 4], local))
    joined = train([COUNT], local)[0]
    assert first["losses"]["itc"] != pytest.approx(joined["losses"]["itc"], abs=1e-6)
    assert {drawn for row in first["drawn"] for drawn in row} <= set(range(4))
    for key, value in joined["queue"].items():
        torch.testing.assert_close(first["queue"][key], value, atol=1e-6, rtol=0)
        assert torch.equal(first["queue"][key], second["queue"][key])
