"""LM: which tokens count, and what they cost."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench_models import CAPTIONS, batch, bench_model
from torch import Tensor

from lavis_lite.losses.language import (
    IGNORED,
    LanguageModelling,
    lm_cross_entropy,
    next_tokens,
)
from lavis_lite.losses.shared import Shared


def by_hand(model: Any, samples: dict[str, Any], smoothing: float, skip: int) -> float:
    """Each text alone, token by token: no padding, no batch."""
    costs = []
    for image, text in zip(samples["image"], samples["text_input"], strict=True):
        ids = model.tokenize([text]).ids.clone()
        ids[0, 0] = model.tokenizer.bos_id
        kv = model.text_decoder.bert.project(model.encode_image(image[None]))
        log_p = model.text_decoder(ids, image_kv=kv)[0].log_softmax(dim=-1)
        for position in range(skip, ids.shape[1] - 1):
            truth = -log_p[position, ids[0, position + 1]]
            uniform = -log_p[position].mean()
            costs.append((1 - smoothing) * truth + smoothing * uniform)
    return torch.stack(costs).mean().item()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_the_mean_over_real_tokens(smoothing: float) -> None:
    model = bench_model("blip_pretrain")
    samples = batch(5)
    value = LanguageModelling(smoothing)(Shared(model, samples))
    assert value.item() == pytest.approx(by_hand(model, samples, smoothing, 0), abs=1e-5)


def test_tokens_of_the_prompt_do_not_count() -> None:
    model = bench_model("blip_caption", prompt="a picture of ")
    assert model.prompt_length == 4  # [DEC] a picture of
    samples = batch(5)
    samples["text_input"] = [f"a picture of {text}" for text in CAPTIONS[:5]]
    value = LanguageModelling(0.1)(Shared(model, samples))
    assert value.item() == pytest.approx(by_hand(model, samples, 0.1, 3), abs=1e-5)


def test_a_text_that_is_taken_for_the_prompt_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loss, samples = LanguageModelling(0.1), batch(2)
    model = bench_model("blip_caption", prompt="a picture of ")
    samples["text_input"] = ["a picture of a red square", "a red"]
    for _ in range(2):
        loss(Shared(model, samples))
    (said,) = caplog.messages
    assert said.startswith("lm: 1 of 2 texts have nothing to learn: their first 4 tokens are taken")
    samples["text_input"][1] = "a picture of a red square"
    LanguageModelling(0.1)(Shared(model, samples))
    assert len(caplog.messages) == 1


def test_padding_does_not_count() -> None:
    model = bench_model("blip_pretrain")
    samples = batch(2)
    losses = []
    for pad in (False, True):
        shared = Shared(model, samples)
        shared.__dict__["text"] = model.tokenizer.encode(samples["text_input"], 30, pad_to_max=pad)
        losses.append(LanguageModelling(0.1)(shared).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_label_smoothing_is_torch_s() -> None:
    model = bench_model("blip_pretrain")
    samples = batch(1)
    text = model.tokenize(samples["text_input"]).replace_first(model.tokenizer.bos_id)
    kv = model.text_decoder.bert.project(model.encode_image(samples["image"]))
    logits: Tensor = model.text_decoder(text.ids, image_kv=kv)
    expected = F.cross_entropy(logits[0, :-1], text.ids[0, 1:], label_smoothing=0.2)
    value = LanguageModelling(0.2)(Shared(model, samples))
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)


def test_next_tokens_leave_out_padding_and_the_prompt() -> None:
    ids = torch.tensor([[7, 8, 9, 0], [7, 8, 9, 5]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    assert next_tokens(ids, mask).tolist() == [[8, 9, IGNORED], [8, 9, 5]]
    assert next_tokens(ids, mask, prompt_length=2).tolist() == [
        [IGNORED, 9, IGNORED],
        [IGNORED, 9, 5],
    ]


def test_the_cross_entropy_of_tokens_by_hand() -> None:
    # Probabilities (1/4, 3/4) at position 0, (1/2, 1/2) at 1; position 2 predicts nothing.
    logits = torch.tensor([[[0.0, math.log(3)], [1.0, 1.0], [5.0, 0.0]]])
    plain = lm_cross_entropy(logits, torch.tensor([[1, 0]]))
    assert plain.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 2)) / 2)
    padded = lm_cross_entropy(logits, torch.tensor([[1, IGNORED]]), label_smoothing=0.2)
    assert padded.item() == pytest.approx(-(0.9 * math.log(3 / 4) + 0.1 * math.log(1 / 4)))
    assert lm_cross_entropy(logits, torch.tensor([[IGNORED, IGNORED]])).item() == 0


def test_later_words_do_not_help_earlier_ones() -> None:
    model = bench_model("blip_pretrain")
    losses = []
    for end in ("square", "triangle"):
        samples = {**batch(1), "text_input": [f"a red {end}"]}
        shared = Shared(model, samples)
        logits = model.decode_logits(shared.image_context, shared.text)
        losses.append(logits[0, :2])
    torch.testing.assert_close(losses[0], losses[1])


def test_a_text_of_nothing_has_a_finite_loss() -> None:
    model = bench_model("blip_caption")
    samples = {**batch(1), "text_input": [""]}
    value = LanguageModelling()(Shared(model, samples))
    value.backward()
    assert value.item() == 0  # [CLS] [SEP] is shorter than the prompt: nothing is left to learn


def test_the_loss_is_fp32_under_autocast() -> None:
    model = bench_model("blip_pretrain")
    plain = LanguageModelling()(Shared(model, batch(3)))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = LanguageModelling()(Shared(model, batch(3)))
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(plain.item(), rel=0.02)
