"""Every benchmark of BLIP in a tiny form: the peers do the same work, and every figure is there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_lite import registry, runners
from lavis_lite.config import load_and_bind
from lavis_lite.losses.matching import Pool
from lavis_lite.modules.layers.flops import counted
from lavis_lite.projects.blip.benchmark import capfilt, recomputing

pytest.importorskip("transformers")

CPU = torch.device("cpu")
TINY = {"type": "tiny", "vocab_size": 1062, "image_size": 64}
SMALL = {
    "caption": {**TINY, "num_tokens": 4},
    "rerank": {**TINY, "texts": 5},
    "vqa_rank": {**TINY, "questions": 2, "answers": 20, "candidates": 6},
    "pretrain_step": {**TINY, "batch": 3, "queue_size": 8},
    "capfilt": {**TINY, "filter_type": "tiny", "images": 3, "batch": 2},
}
QUICK = {"run.repeats": 1, "run.warmup": 0, "run.num_threads": 1, "run.device": "cpu"}


def run(config: str, out: Path, small: dict[str, Any]) -> list[dict[str, Any]]:
    """Cases of a config at a tiny size; memory, which takes a process each, is left out."""
    name = f"benchmark/{config}.yaml"
    given = {**QUICK, "run.output_dir": str(out)}
    for number in range(len(load_and_bind(name).cases)):
        given |= {f"cases[{number}].{key}": value for key, value in small.items()}
    loaded = load_and_bind(name, values=given)
    cases = [
        dataclasses.replace(
            case,
            memory=False,
            reach={against: {"time": wanted["time"]} for against, wanted in case.reach.items()},
        )
        for case in loaded.cases[:: 2 if len(loaded.cases) > 4 else 1]
    ]
    return runners.run(dataclasses.replace(loaded, cases=cases))["cases"]


@pytest.mark.parametrize("config", SMALL)
def test_a_benchmark_measures_equal_work(config: str, tmp_path: Path) -> None:
    for case in run(config, tmp_path, SMALL[config]):
        assert case["baselines"], case["title"]
        for name, baseline in case["baselines"].items():
            assert baseline["differences"], name
            assert all(one["agrees"] for one in baseline["differences"]), baseline["differences"]
            assert baseline["ratio"]["time"] == case["ours"]["seconds"] / baseline["seconds"]
            assert baseline["gflop"] > 0
        assert case["ours"]["gflop"] > 0
        for one in case["reach"]:
            assert one["value"] == case["baselines"][one["against"]]["ratio"]["time"]
            assert one["reached"] == (one["value"] <= one["at_most"])


def built(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    spec = {"name": name, **TINY, **arguments}
    return registry.build("workload", spec, device=CPU, precision="fp32")


def test_captions_of_other_weights_are_not_the_same() -> None:
    workload = built("blip_captions", num_tokens=4, batch=2)
    ours, theirs = (workload.contender(name)() for name in ("ours", "transformers"))
    assert all(one.agrees for one in workload.differences("transformers", ours, theirs))
    with torch.no_grad():
        for parameter in workload.theirs.parameters():
            parameter.add_(torch.randn_like(parameter))
    theirs = workload._transformers()
    found = {one.what: one.agrees for one in workload.differences("transformers", ours, theirs)}
    assert found == {"logits": False, "captions": False, "tokens": True}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_answers_that_fit_worse_are_not_the_same(precision: str) -> None:
    torch.manual_seed(0)
    spec = {"name": "blip_vqa_rank", **TINY, "questions": 2, "answers": 20, "candidates": 6}
    workload = registry.build("workload", spec, device=CPU, precision=precision)
    ours, theirs = (workload.contender(name)() for name in ("ours", "repeated states"))
    assert all(d.agrees for d in workload.differences("repeated states", ours, theirs))
    longest = workload.listed.mask.sum(1).argmax().expand(2)  # the least likely of all
    assert not any(d.agrees for d in workload.differences("repeated states", longest, theirs))


def test_a_shorter_text_is_other_work() -> None:
    workload = built("blip_captions", num_tokens=4, method="nucleus")
    workload.contender("transformers")
    theirs = torch.zeros(1, workload.length - 1, dtype=torch.long)
    found = {one.what: one.agrees for one in workload.differences("transformers", [], theirs)}
    assert found == {"logits": True, "tokens": False}


def test_several_captions_are_as_many_on_both_sides() -> None:
    workload = built("blip_captions", num_tokens=3, method="nucleus", num_captions=3, batch=2)
    assert len(workload.contender("ours")()) == 6 == workload.amount
    assert len(workload.contender("transformers")()) == 6


def test_other_negatives_give_another_matching_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = built("blip_pretrain_step", batch=4, queue_size=8)
    with torch.no_grad():
        for parameter in workload.model.text_encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    before = {d.what: d.agrees for d in workload.differences("straightforward", 0.0, 0.0)}
    assert before == {"loss itc": True, "loss itm": True, "loss lm": True}
    theirs = workload._losses("straightforward")

    def shifted(self: Any, weights: torch.Tensor, stream: int) -> torch.Tensor:
        return (torch.arange(len(weights)) + 1 + stream) % len(weights)

    monkeypatch.setattr(workload, "_losses", lambda name: theirs if name != "ours" else ours)
    mine = type(workload)._losses(workload, "ours")()
    monkeypatch.setattr(Pool, "draw", shifted)

    def ours() -> dict[str, Any]:
        return mine

    after = {d.what: d.agrees for d in workload.differences("straightforward", 0.0, 0.0)}
    assert after["loss itm"] is False


def test_a_step_of_each_way_trains_and_follows(tmp_path: Path) -> None:
    workload = built("blip_pretrain_step", batch=3, queue_size=8)
    for name in ("ours", "straightforward"):
        model, queue = workload.model, workload.model.losses["itc"].queue
        online = model.text_proj.weight.clone()
        average, pointer = model.text_proj_m.weight.clone(), int(queue.queue_ptr)
        step = workload.contender(name)
        assert torch.isfinite(torch.tensor(step()))
        step()
        assert not torch.equal(model.text_proj.weight, online)
        assert not torch.equal(model.text_proj_m.weight, average)
        assert int(queue.queue_ptr) == (pointer + 6) % 8


@pytest.mark.parametrize("name", ["ours", "gradient checkpointing", "accumulation"])
def test_ways_of_holding_less_do_a_step_each(name: str) -> None:
    workload = built("blip_training_memory", batch=4, queue_size=8)
    model, queue = workload.model, workload.model.losses["itc"].queue
    with torch.no_grad():
        model.text_proj.weight.add_(0.1)
    online, average = model.text_proj.weight.clone(), model.text_proj_m.weight.clone()
    assert torch.isfinite(torch.tensor(workload.contender(name)()))
    assert int(queue.queue_ptr) == 4
    moved = torch.lerp(average, online, 1 - model.momentum.decay)
    torch.testing.assert_close(model.text_proj_m.weight, moved)  # once per step
    assert not torch.equal(model.text_proj.weight, online)
    assert all(p.grad is None for p in model.parameters())


def test_recomputing_is_the_same_work_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = built("blip_training_memory", batch=4, queue_size=8)
    before = {name: tensor.clone() for name, tensor in workload.model.state_dict().items()}
    name = "gradient checkpointing"
    assert [(d.what, d.agrees) for d in workload.differences(name, 0.0, 0.0)] == [
        ("loss", True),
        ("norm of the gradients", True),
    ]
    for key, tensor in workload.model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    flops = {n: counted(workload.contender(n))[1] for n in ("ours", name, "accumulation")}
    assert flops["accumulation"] <= flops["ours"] < flops[name] < 1.5 * flops["ours"]
    assert not any("forward" in vars(module) for module in workload.model.modules())
    monkeypatch.setattr(recomputing, "recompute_activations", lambda model, *_: model.eval())
    assert not any(d.agrees for d in workload.differences(name, 0.0, 0.0))


def test_a_step_that_keeps_products_alone_is_as_much_work_and_the_same() -> None:
    losses, flops = [], []
    for recompute in (False, True):
        workload = built("blip_pretrain_step", batch=4, queue_size=8, recompute=recompute)
        loss, operations = counted(workload.contender("ours"))
        losses.append(loss)
        flops.append(operations)
        assert all(one.agrees for one in workload.differences("straightforward", 0.0, 0.0))
        assert not any("forward" in vars(module) for module in workload.model.modules())
    assert losses[0] == losses[1]
    assert flops[0] == flops[1]


@pytest.mark.slow
def test_the_bound_of_capfilt_is_encoding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"name": "blip_capfilt", **SMALL["capfilt"]}
    workload = registry.build("workload", spec, device=CPU, precision="fp32")
    encode = workload.contender("image encoders")
    monkeypatch.setattr(capfilt, "images", lambda *_: pytest.fail("pixels made on the clock"))
    assert encode() == 3


def test_capfilt_over_processes_goes_through_all_images() -> None:
    spec = {"name": "blip_capfilt_workers", "rows": 8, "workers": 2, "shard_size": 4}
    workload = registry.build("workload", spec, device=CPU, precision="fp32")
    assert workload.contender("ours")()["read"] == 8
