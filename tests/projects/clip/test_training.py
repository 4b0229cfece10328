"""Training: two processes equal one, chunks equal the batch, and what has no chunks is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bench_dual import TEXT, dual
from bench_models import batch
from torch import Tensor, nn
from two_processes import run_on_two_processes

from lavis_lite import create_model, distributed
from lavis_lite.errors import ConfigError
from lavis_lite.losses.gradient_cache import by_chunks
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.runners.train.loss_module import LossModule, parallelize

COUNT = 8
LOSSES = {"clip": {"nce": {"name": "info_nce"}}, "siglip": {"sigmoid": {"name": "sigmoid"}}}


def step(name: str, parts: list[int], overrides: dict[str, Any]) -> dict[str, Any]:
    """Loss and gradients of one step, under DDP where there are several processes."""
    model = dual(name, **overrides)
    start = sum(parts[: distributed.rank()])
    own = slice(start, start + parts[distributed.rank()])
    samples = {
        key: value[own] if isinstance(value, list | Tensor) else value
        for key, value in batch(COUNT).items()
    }
    batch_and_step = samples, StepInfo()
    optimizer = torch.optim.SGD(model.parameters())
    losses = parallelize(LossModule(model), lambda: batch_and_step, optimizer)
    found = losses(*batch_and_step)
    found["loss"].backward()
    loss = distributed.all_reduce(found["loss"].detach()) / distributed.world_size()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.item(), "gradients": gradients}


def assert_same(one: dict[str, Any], other: dict[str, Any], atol: float) -> None:
    assert one["loss"] == pytest.approx(other["loss"], abs=atol)
    assert one["gradients"].keys() == other["gradients"].keys()
    assert {"logit_scale", "text_encoder.token_embed.weight"} <= one["gradients"].keys()
    for key, gradient in one["gradients"].items():
        torch.testing.assert_close(other["gradients"][key], gradient, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("cache", [0, 3])
@pytest.mark.parametrize(("name", "parts"), [("clip", [4, 4]), ("siglip", [5, 3])])
def test_two_processes_equal_one_on_the_joined_batch(
    name: str, parts: list[int], cache: int
) -> None:
    one = step(name, [COUNT], {})
    assert max(g.abs().max() for g in one["gradients"].values()) > 1e-2
    for two in run_on_two_processes(step, name, parts, {"gradient_cache": cache}):
        assert_same(one, two, 1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
@pytest.mark.parametrize("name", LOSSES)
def test_chunks_give_the_numbers_of_the_plain_batch(name: str, chunk: int) -> None:
    assert_same(step(name, [COUNT], {}), step(name, [COUNT], {"gradient_cache": chunk}), 1e-5)


def test_several_losses_share_the_embeddings_of_chunks() -> None:
    both = {"losses": {**LOSSES["siglip"], **LOSSES["clip"]}}
    assert_same(
        step("siglip", [COUNT], both), step("siglip", [COUNT], {**both, "gradient_cache": 3}), 1e-5
    )


def test_both_passes_over_a_chunk_drop_the_same() -> None:
    layer = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    rows = torch.randn(6, 4)

    def gradient(chunked: bool) -> Tensor:
        torch.manual_seed(1)
        layer.zero_grad()
        if chunked:
            embeds = by_chunks(layer, 2, rows)
        else:  # the same draws, and everything kept
            embeds = torch.cat([layer(part) for part in rows.split(2)])
        (embeds @ embeds.T).square().sum().backward()
        return layer[0].weight.grad.clone()

    assert torch.equal(gradient(chunked=True), gradient(chunked=False))


def kept_bytes(gradient_cache: int) -> int:
    """What the graph of a forward pass holds for the backward pass, besides weights and input."""
    model = dual("clip", gradient_cache=gradient_cache)
    samples = batch(32)
    known = {id(t.untyped_storage()) for t in (*model.parameters(), samples["image"])}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(samples)
    assert output.loss.requires_grad
    return sum(kept.values())


def test_the_graph_of_chunks_keeps_little_more_than_embeddings() -> None:
    assert kept_bytes(4) < kept_bytes(0) / 5


def test_without_gradients_chunks_change_nothing() -> None:
    with torch.no_grad():
        plain, chunked = (dual("clip", gradient_cache=n)(batch(COUNT)).loss for n in (0, 3))
    torch.testing.assert_close(plain, chunked, atol=1e-6, rtol=0)


def test_a_tower_with_batch_statistics_cannot_be_chunked() -> None:
    with pytest.raises(ConfigError, match=r"gradient_cache: .*BatchNorm\w+\) keeps statistics"):
        create_model(
            "clip", "tiny", vision={"name": "timm/test_resnet"}, gradient_cache=2, text=TEXT
        )
    with pytest.raises(ConfigError, match="gradient_cache: -1; rows of a chunk"):
        dual("clip", gradient_cache=-1)


@pytest.mark.parametrize("name", LOSSES)
def test_a_few_steps_lower_the_loss(name: str) -> None:
    model, samples = dual(name), batch(COUNT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = model(samples).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


def test_the_temperature_stays_above_its_bound() -> None:
    model = dual("clip")
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    model(batch(2))
    assert model.temperature.item() == pytest.approx(0.01)
    free = dual("siglip")
    with torch.no_grad():
        free.logit_scale.fill_(9.0)
    free(batch(2))
    assert free.logit_scale.item() == 9.0


@pytest.mark.parametrize("cache", [0, 3])
def test_a_siglip_learns_from_several_texts_of_each_image(cache: int) -> None:
    model = dual("siglip", gradient_cache=cache)
    samples = batch(4)
    samples["text_inputs"] = [[text, f"{text} on black"] for text in samples["text_input"]]
    texts = [text for row in samples["text_inputs"] for text in row]
    images = model.image_features(model.encode_image(samples["image"]))
    logits = images @ model.text_features(model.encode_text(texts)).T / model.temperature
    signs = 2 * torch.eye(4).repeat_interleave(2, dim=1) - 1  # (4, 8)
    expected = -nn.functional.logsigmoid(signs * (logits + model.logit_bias)).sum() / (4 * 2)
    torch.testing.assert_close(model(samples).loss, expected)


@pytest.mark.parametrize(
    "rows", [[["a"]], [["a", "b"], ["c"]], ["a", "b"], [["a"], [3]], [[], []], "ab"]
)
def test_several_texts_that_are_none_are_refused(rows: Any) -> None:
    model, samples = dual("siglip"), batch(2)
    with pytest.raises(ConfigError, match="text_inputs: "):
        model({**samples, "text_inputs": rows})
