"""What every part promises beyond its shapes: gradients, bf16, one graph, weights there and back.

One body per promise, over whatever is registered: a new name is tested without a line here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lavis_lite import create_model, registry
from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.checkpoint.weights import read_weights, save_weights
from lavis_lite.models.base import VisionLanguageModel
from lavis_lite.registry import cards

TEXTS = ["a cross and a small red circle, " * 3, "two red squares above it, " * 4]
TINY = [n for n in registry.index.names("model") if "tiny" in cards.types(n)]
COMPILED = [(name, method) for name in TINY for method in cards.card(name).get("compiles", ())]
SMALL_TEXT = {"width": 16, "depth": 1, "num_heads": 2, "mlp_width": 16}
TEXT_BACKBONES = [name for name in registry.index.names("text_backbone") if "*" not in name]


def built(name: str, seed: int = 0) -> VisionLanguageModel:
    torch.manual_seed(seed)
    return create_model(name, "tiny")  # type: ignore[return-value]


def samples(model: Any) -> dict[str, Any]:
    """A batch with everything that a loss may ask for."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, model.image_size, model.image_size, generator=generator)
    batch: dict[str, Any] = {"image": image, "text_input": TEXTS, "label": torch.tensor([1, 0])}
    batch |= {"image_id": torch.tensor([0, 1]), "image0": image, "image1": image.flip(0)}
    return batch | {"answers": [["red"], ["two", "2"]], "weights": [[1.0], [0.7, 0.3]]}


def text_backbone(name: str) -> nn.Module:
    taken = registry.entry("text_backbone", name).arguments
    spec = {"name": name, **{k: v for k, v in SMALL_TEXT.items() if k in taken}}
    return registry.build("text_backbone", spec, vocab_size=50, encoder_width=8)


def test_there_is_something_to_test() -> None:
    assert len(TINY) >= 8
    assert len(COMPILED) >= 8
    assert TEXT_BACKBONES


# ---- models


@pytest.mark.parametrize("name", TINY)
def test_gradients_reach_every_part_that_is_trained(name: str) -> None:
    model = built(name).train()
    if not model.losses:
        pytest.skip("has no losses: it is for inference")
    model(samples(model)).loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    for part in {name.partition(".")[0] for name in trained}:
        own = [p for n, p in trained.items() if n.partition(".")[0] == part]
        reached = [p for p in own if p.grad is not None]
        assert reached, part
        assert all(p.grad.isfinite().all() for p in reached if p.grad is not None), part
        assert any(p.grad.abs().sum() > 0 for p in reached if p.grad is not None), part


@pytest.mark.parametrize("name", TINY)
def test_it_works_in_bf16(name: str) -> None:
    model = built(name).train()
    batch = samples(model)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = model.encode_image(batch["image"])  # type: ignore[operator]
        assert tokens.isfinite().all()
        output = model(batch) if model.losses else None
    if output is not None:
        assert output.loss.dtype == torch.float32
        output.loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", TINY)
def test_its_weights_come_back_to_the_bit(name: str, tmp_path: Path) -> None:
    first, second = built(name), built(name, seed=1)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    save_weights(first, tmp_path / "model.safetensors")
    report = load_state(second, read_weights(tmp_path / "model.safetensors"), adapt=False)
    assert report.complete
    ours, theirs = first.state_dict(), second.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(("name", "method"), COMPILED)
def test_what_its_card_says_compiles_in_one_graph(name: str, method: str) -> None:
    model = built(name).eval()
    image = samples(model)["image"]
    torch.compiler.reset()
    # The back end that only runs the graph: whether there is one graph is what is asked.
    compiled = torch.compile(getattr(model, method), fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), getattr(model, method)(image))


# ---- text backbones


@pytest.mark.parametrize("name", TEXT_BACKBONES)
def test_a_text_backbone_keeps_its_contract(name: str) -> None:
    backbone = text_backbone(name)
    ids = torch.randint(1, 50, (2, 5))
    mask = torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    states = backbone(ids, mask)
    assert states.shape == (2, 5, backbone.width)
    assert states.dtype == torch.float32
    states[:, 0].square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert backbone(ids, mask).isfinite().all()
    other = text_backbone(name)
    other.load_state_dict(backbone.state_dict())
    backbone.eval(), other.eval()
    with torch.no_grad():
        assert torch.equal(other(ids, mask), backbone(ids, mask))
        # Later tokens that are padding leave the others alone.
        changed = torch.where(mask.bool(), ids, 7)
        torch.testing.assert_close(backbone(changed, mask)[1, :3], backbone(ids, mask)[1, :3])


# ---- losses


@pytest.mark.parametrize("name", registry.index.names("loss"))
def test_a_loss_is_a_scalar_in_fp32_with_a_gradient(name: str) -> None:
    owners = [
        model
        for model in TINY
        if any(
            spec.get("name") == name
            for spec in (cards.preset(model, "tiny").get("losses") or {}).values()
        )
    ]
    if not owners:
        pytest.skip("no tiny model trains with it; its own tests do")
    model = built(owners[0]).train()
    specs = cards.preset(owners[0], "tiny")["losses"]
    key = next(key for key, spec in specs.items() if spec["name"] == name)
    loss = model(samples(model)).losses[key]
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
