"""Padding that layers leave out in training: what comes out is what comes out with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.modules.layers.tower_layers import recompute_activations
from lavis_lite.modules.med.model import Med
from lavis_lite.modules.med.unpadding import Padding

TEXTS = ["a small red circle above a large blue square and a star", "a star", "two green crosses"]
MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]])


def towers(model: Any) -> list[Med]:
    return [module for module in model.modules() if isinstance(module, Med)]


def step(model: Any, samples: dict[str, Any], leaves_out: bool) -> tuple[float, list[Tensor]]:
    for tower in towers(model):
        tower.unpads = leaves_out
    model.zero_grad()
    buffers = [buffer.clone() for buffer in model.buffers()]  # momentum's queue
    loss = model(samples).loss
    loss.backward()
    with torch.no_grad():
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def training(name: str) -> Any:
    torch.manual_seed(0)
    model = create_model(name, "tiny").double().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


def samples_of(name: str) -> dict[str, Any]:
    image = torch.randn(2, 3, 3, 64, 64).double()
    if "nlvr" in name:
        return {
            "image0": image[0],
            "image1": image[1],
            "text_input": TEXTS,
            "label": torch.tensor([0, 1, 1]),
        }
    answers = {
        "answer": ["yes", "two circles", "no"],
        "weight": torch.ones(3),
        "n_answers": [1] * 3,
    }
    return {"image": image[0], "text_input": TEXTS, **(answers if "vqa" in name else {})}


def test_padding_is_taken_out_and_put_back():
    padding = Padding.from_mask(MASK)
    assert padding is not None
    padded = torch.randn(3, 4, 2)
    real = padding.unpad(padded)
    assert len(real) == 7
    assert real.equal(padded[MASK.bool()])
    assert padding.pad(real).equal(padded * MASK[..., None])


def test_nothing_is_left_out_of_what_has_no_padding_or_cannot_be_looked_at():
    assert Padding.from_mask(None) is None
    assert Padding.from_mask(torch.ones(2, 3)) is None
    assert Padding.from_mask(torch.tril(torch.ones(2, 3, 3))) is None  # several texts in a row
    assert Padding.from_mask(MASK.to("meta")) is None


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["blip_pretrain", "blip_nlvr", "blip_vqa", "albef_pretrain"])
def test_losses_and_gradients_are_those_with_padding(name: str, recompute: bool):
    model, samples = training(name), samples_of(name)
    if recompute:
        recompute_activations(model, "text", -1, "products")
    whole, exact = step(model, samples, leaves_out=False)
    loss, found = step(model, samples, leaves_out=True)
    assert loss == pytest.approx(whole, rel=1e-5)  # logits are fp32 where losses want them so
    assert len(found) == len(exact)
    for mine, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-6)


def test_under_autocast_losses_are_those_with_padding():
    model, samples = training("blip_pretrain").float(), samples_of("blip_pretrain")
    samples["image"] = samples["image"].float()
    with torch.autocast("cpu", torch.bfloat16):
        whole, exact = step(model, samples, leaves_out=False)
        loss, found = step(model, samples, leaves_out=True)
    assert loss == pytest.approx(whole, rel=5e-3)
    norm, usual = (torch.nn.utils.get_total_norm(grads) for grads in (found, exact))
    assert float(norm) == pytest.approx(float(usual), rel=0.05)


@pytest.mark.parametrize("mode", ["text", "multimodal", "decoder"])
def test_a_text_that_is_all_padding_disturbs_no_other(mode: str):
    torch.manual_seed(0)
    med = Med(
        width=8, depth=2, num_heads=2, mlp_width=16, vocab_size=9, encoder_width=6, dropout=0.0
    )
    ids, mask = torch.randint(9, (3, 4)), MASK.clone()
    mask[1] = 0
    kv = None if mode == "text" else med.project(torch.randn(3, 5, 6))
    states = med(ids, mask, mode=mode, image_kv=kv)
    states[mask.bool()].square().sum().backward()
    med.unpads = False
    torch.testing.assert_close(
        states[mask.bool()], med(ids, mask, mode=mode, image_kv=kv)[mask.bool()]
    )
    assert all(p.grad.isfinite().all() for p in med.parameters() if p.grad is not None)


def test_layers_run_over_real_tokens_alone_in_training_and_over_all_otherwise():
    model = training("blip_caption")
    seen: list[int] = []
    layer = model.text_decoder.bert.encoder.layer[0].intermediate["dense"]
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][..., 0].numel()))
    samples = samples_of("blip_caption")
    real = int(model.tokenize(TEXTS).mask.sum())
    padded = model.tokenize(TEXTS).mask.numel()
    model(samples)
    model.eval()(samples)
    assert seen == [real, padded]
    assert real < padded
