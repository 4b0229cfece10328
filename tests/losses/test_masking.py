"""Hidden words: how many, which, the same for all numbers of processes; the loss by its formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_lite import create_model, distributed
from lavis_lite.errors import ConfigError
from lavis_lite.losses.masking import (
    MaskedLanguageModelling,
    is_word,
    mask_words,
    mlm_cross_entropy,
)
from lavis_lite.losses.shared import Shared

CAPTIONS = [
    "a red square",
    "a small blue circle above a large green triangle",
    "two crosses",
    "a yellow star left of a red star",
]
NO_DROPOUT = {"text": {"dropout": 0.0}}


def built(**options: Any) -> tuple[Any, MaskedLanguageModelling]:
    torch.manual_seed(0)
    losses = {"itc": None, "itm": None, "mlm": {"name": "mlm", **options}}
    model = create_model("albef_pretrain", "tiny", losses=losses, **NO_DROPOUT)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
        for parameter in model.text_encoder_m.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model, model.losses["mlm"]


def batch(texts: list[str], **extra: Any) -> dict[str, Any]:
    image = torch.randn(len(texts), 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return {"image": image, "text_input": texts, "seed": 3, "step": 5, **extra}


def test_so_many_words_are_hidden_and_so() -> None:
    model, loss = built()
    shared = Shared(model, batch(CAPTIONS * 600))
    hidden, chosen = loss.hide(shared)
    words = is_word(shared.text, model.tokenizer)
    ids, new = shared.text.ids[chosen], hidden.ids[chosen]
    assert chosen.sum() / words.sum() == pytest.approx(0.15, abs=0.01)
    masked, kept = new == model.tokenizer.mask_id, new == ids
    assert masked.float().mean() == pytest.approx(0.8, abs=0.03)
    assert kept.float().mean() == pytest.approx(0.1, abs=0.03)
    others = new[~masked & ~kept]
    assert len(others.unique()) > 100  # words of all kinds
    assert hidden.ids[~chosen].equal(shared.text.ids[~chosen])
    assert hidden.mask is shared.text.mask


def test_what_frames_a_text_is_never_hidden() -> None:
    model, loss = built(probability=0.99)
    shared = Shared(model, batch(CAPTIONS * 5))
    _, chosen = loss.hide(shared)
    tokenizer, ids = model.tokenizer, shared.text.ids
    for framing in (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id):
        assert (ids == framing).any()
        assert not chosen[ids == framing].any()
    assert chosen.sum() > 0.9 * is_word(shared.text, tokenizer).sum()


def test_what_is_hidden_depends_on_seed_and_step_alone() -> None:
    model, loss = built()

    def ids(**extra: Any) -> Tensor:
        return loss.hide(Shared(model, batch(CAPTIONS * 5, **extra))).text.ids

    assert ids().equal(ids())
    torch.manual_seed(99)
    assert ids().equal(ids(progress=0.3))
    assert not ids().equal(ids(step=6))
    assert not ids().equal(ids(seed=4))
    assert not ids().equal(ids(micro_step=1))


def test_two_processes_hide_what_one_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    model, loss = built(probability=0.5)
    whole = loss.hide(Shared(model, batch(CAPTIONS)))
    monkeypatch.setattr(distributed, "all_gather_object", lambda count: [1, 3])
    for rank, rows in enumerate([slice(1), slice(1, 4)]):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        part = loss.hide(Shared(model, batch(CAPTIONS[rows])))
        length = part.chosen.shape[1]  # the texts of one process may be shorter
        assert part.chosen.equal(whole.chosen[rows, :length])
        assert part.text.ids.equal(whole.text.ids[rows, :length])


@pytest.mark.parametrize(("progress", "alpha"), [(1.0, 0.4), (0.05, 0.2), (0.0, 0.0)])
def test_the_loss_is_that_of_its_formula_word_by_word(progress: float, alpha: float) -> None:
    model, loss = built(probability=0.5, alpha=0.4, ramp=0.1)
    model.eval()
    samples = batch(CAPTIONS, progress=progress)
    shared = Shared(model, samples)
    hidden, chosen = loss.hide(shared)
    copy = model.momentum
    expected = []
    for row, column in chosen.nonzero().tolist():
        length = int(hidden.mask[row].sum())
        logits = []
        for online in (model, copy):
            kv = online.text_tower.project(online.encode_image(samples["image"][row : row + 1]))
            states = online.text_tower(
                hidden.ids[row : row + 1, :length], mode="multimodal", image_kv=kv
            )
            logits.append(online.text_encoder.cls(states)[0, column].log_softmax(0))
        hard = -logits[0][shared.text.ids[row, column]]
        soft = -(logits[1].exp() * logits[0]).sum()
        expected.append((1 - alpha) * hard + alpha * soft)
    assert len(expected) > 5
    assert loss(shared).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_the_momentum_copy_learns_nothing_from_it_and_everything_else_does() -> None:
    model, loss = built(probability=0.5)
    loss(Shared(model, batch(CAPTIONS))).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None}
    assert not any(name.partition(".")[0].endswith("_m") for name in moved)
    towers = ("visual_encoder.", "text_encoder.")
    assert {n for n, p in model.named_parameters() if p.requires_grad and n.startswith(towers)} == {
        name for name in moved if name.startswith(towers)
    }


def test_a_batch_without_a_hidden_word_costs_nothing() -> None:
    model, loss = built(probability=1e-9)
    found = loss(Shared(model, batch(CAPTIONS[:1])))
    found.backward()
    assert found.item() == 0


def test_a_probability_out_of_range_and_a_tokenizer_without_a_mask_are_refused() -> None:
    model, _ = built()
    with pytest.raises(ConfigError, match=r"mlm\.probability: 1\.5"):
        MaskedLanguageModelling(1.5, model=model)
    model.tokenizer.mask_id = None
    with pytest.raises(ConfigError, match="no mask token"):
        MaskedLanguageModelling(model=model)


def test_chosen_words_become_masks_or_random_words_or_stay() -> None:
    ids = torch.tensor([[10, 11, 12, 13, 14]])
    maskable = torch.tensor([[False, True, True, True, True]])
    choice = torch.tensor([[0.0, 0.1, 0.1, 0.1, 0.2]])  # the last one is not chosen
    fate = torch.tensor([[0.0, 0.79, 0.85, 0.95, 0.0]])
    words = torch.full((1, 5), 99)
    masked, chosen = mask_words(ids, maskable, choice, fate, words, probability=0.15, mask_id=1)
    assert chosen.tolist() == [[False, True, True, True, False]]
    assert masked.tolist() == [[10, 1, 99, 13, 14]]


def test_masked_words_cost_what_labels_and_teacher_say() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])  # probabilities 1/4 and 3/4
    plain = mlm_cross_entropy(logits, torch.tensor([0]))
    assert plain.item() == pytest.approx(math.log(4))
    teacher = torch.tensor([[0.0, 1.0]])
    mixed = mlm_cross_entropy(logits, torch.tensor([0]), teacher, alpha=0.4)
    assert mixed.item() == pytest.approx(0.6 * math.log(4) - 0.4 * math.log(3 / 4))
