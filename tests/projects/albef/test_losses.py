"""ALBEF's losses against their formulas, computed pair by pair; distillation; padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.losses.matching import Pool
from lavis_lite.losses.shared import Shared

TEXTS = ["a cross", "two red squares above a large blue circle", "nothing", "a star on grey"]
ANSWERS = [["red"], ["two", "2"], ["no"], ["a blue one", "blue", "grey"]]
WEIGHTS = [[1.0], [0.7, 0.3], [1.0], [0.5, 0.25, 0.25]]


def strong(name: str, **overrides: Any) -> Any:
    """A tiny model without dropout, whose weights tell inputs apart and whose copy differs."""
    torch.manual_seed(0)
    model = create_model(f"albef_{name}", "tiny", text={"dropout": 0.0}, **overrides)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
        for key, parameter in model.named_parameters():
            if key.partition(".")[0].endswith("_m"):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def batch(**extra: Any) -> dict[str, Any]:
    image = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found = {"image": image, "text_input": TEXTS, "image0": image, "image1": image.flip(0)}
    return {**found, "answers": ANSWERS, "weights": WEIGHTS, "seed": 1, "step": 2, **extra}


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


@torch.no_grad()
@pytest.mark.parametrize(("progress", "alpha"), [(1.0, 0.4), (0.05, 0.2)])
def test_contrast_is_that_of_its_formula(progress: float, alpha: float) -> None:
    model, samples = strong("pretrain"), batch(progress=progress)
    embeds = []
    for m in ("", "_m"):
        tokens = getattr(model, f"visual_encoder{m}")(samples["image"])[:, 0]
        text = model.tokenize(TEXTS)
        states = getattr(model, f"text_encoder{m}").bert(text.ids, text.mask, mode="text")[:, 0]
        embeds.append(unit(getattr(model, f"vision_proj{m}")(tokens)))
        embeds.append(unit(getattr(model, f"text_proj{m}")(states)))
    image, words, image_m, words_m = embeds
    queue = model.losses["itc"].queue
    total = torch.zeros(())
    for rows, rows_m, columns in (
        (image, image_m, torch.cat([words_m, queue.text_queue.T])),
        (words, words_m, torch.cat([image_m, queue.image_queue.T])),
    ):
        for row in range(4):
            target = alpha * (rows_m[row] @ columns.T / 0.07).softmax(0)
            target[row] += 1 - alpha
            total -= (target * (rows[row] @ columns.T / 0.07).log_softmax(0)).sum() / 8
    found = model.losses["itc"](Shared(model, samples))
    assert found.item() == pytest.approx(total.item(), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["pretrain", "retrieval"])
def test_matching_is_that_of_its_pairs_read_one_by_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, samples = strong(name), batch()
    images, texts = torch.tensor([1, 2, 3, 0]), torch.tensor([2, 0, 1, 1])
    drawn = iter([images, texts])
    monkeypatch.setattr(Pool, "draw", lambda *_: next(drawn))
    tokens = model.encode_image(samples["image"])
    pairs = [(row, row, 1) for row in range(4)]
    pairs += [(int(images[row]), row, 0) for row in range(4)]
    pairs += [(row, int(texts[row]), 0) for row in range(4)]
    losses = [
        F.cross_entropy(model.match(tokens[i : i + 1], [TEXTS[t]]), torch.tensor([label]))
        for i, t, label in pairs
    ]
    found = model.losses["itm"](Shared(model, samples))
    assert found.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_matching_goes_on_from_the_texts_of_contrast(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = strong("pretrain", losses={"mlm": None}), []
    lowest = model.text_tower.encoder.layer[0]
    lowest.register_forward_hook(lambda *_: calls.append(1))
    model(batch())
    assert len(calls) == 1  # read once, for contrast and matching both
    monkeypatch.setattr(type(model), "fuses_states", False)
    model(batch())
    assert len(calls) == 4


@torch.no_grad()
@pytest.mark.parametrize(("progress", "alpha"), [(1.0, 0.4), (0.05, 0.2)])
def test_answers_are_learnt_from_their_words_and_from_the_copy(
    progress: float, alpha: float
) -> None:
    model, samples = strong("vqa"), batch(progress=progress)
    total = 0.0
    for row, (answers, weights) in enumerate(zip(ANSWERS, WEIGHTS, strict=True)):
        for answer, weight in zip(answers, weights, strict=True):
            ids = model.tokenizer.encode([answer], 64).ids
            question = model.tokenizer.encode([TEXTS[row]], 64).ids
            scores = []
            for m in ("", "_m"):
                encoder, decoder = (getattr(model, f"text_{k}coder{m}") for k in ("en", "de"))
                tokens = getattr(model, f"visual_encoder{m}")(samples["image"][row : row + 1])
                kv = encoder.project(tokens)
                states = encoder(question, mode="multimodal", image_kv=kv)
                logits = decoder(ids, image_kv=decoder.bert.project(states))[0, :-1]
                scores.append(logits.log_softmax(-1))
            hard = -scores[0].gather(1, ids[0, 1:, None]).sum()
            soft = -(scores[1].exp() * scores[0]).sum()
            total += weight * ((1 - alpha) * hard + alpha * soft).item() / 4
    assert model(samples).loss.item() == pytest.approx(total, rel=1e-4)


def test_without_a_copy_answers_are_learnt_from_their_words_alone() -> None:
    model = strong("vqa", use_distill=False)
    assert not any("_m." in key for key in model.state_dict())
    assert model.losses["lm"].alpha == 0
    assert model(batch()).loss.isfinite()


@torch.no_grad()
def test_two_images_are_learnt_with_the_opinion_of_the_copy() -> None:
    model = strong("nlvr")
    samples = batch(label=torch.tensor([0, 1, 1, 0]), progress=1.0)
    logits = model.predict(samples)["predictions"]
    opinion = Shared(model, samples).momentum.class_logits
    assert (opinion - logits).abs().max() > 1e-3
    true = F.cross_entropy(logits, samples["label"])
    soft = F.cross_entropy(logits, opinion.softmax(1))
    found = model(samples).loss
    assert found.item() == pytest.approx((0.6 * true + 0.4 * soft).item(), rel=1e-5)


def test_layers_of_a_pair_share_keys_and_values_and_go_on_sharing() -> None:
    model = strong("nlvr").train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model(batch(label=torch.tensor([0, 1, 1, 0]))).loss.backward()
    optimizer.step()
    model.update_momentum()
    for tower in (model.text_encoder, model.text_encoder_m):
        first, second = (layer.crossattention.self for layer in tower.fusion_layers[:2])
        assert first.key.weight is second.key.weight
        assert first.value.bias is second.value.bias
        assert first.query.weight is not second.query.weight
    first, second = (layer.crossattention.self for layer in model.text_encoder.fusion_layers[:2])
    assert not first.query.weight.equal(second.query.weight)


def test_training_lowers_every_loss() -> None:
    torch.manual_seed(0)
    model = create_model(
        "albef_pretrain", "tiny", text={"dropout": 0.0}, vision={"init_scale": 1.0}
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    seen = []
    for step in range(12):
        optimizer.zero_grad()
        output = model(batch(step=0, progress=step / 12))
        output.loss.backward()
        optimizer.step()
        seen.append({name: loss.item() for name, loss in output.losses.items()})
    assert seen[-1]["mlm"] < seen[0]["mlm"] - 1
    assert sum(seen[-1].values()) < sum(seen[0].values()) - 1
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


# ---- padding


@torch.no_grad()
def test_no_result_depends_on_the_padding_of_a_text() -> None:
    samples = batch()
    pretrain, vqa, nlvr = (strong(name) for name in ("pretrain", "vqa", "nlvr"))
    tokens = pretrain.encode_image(samples["image"])
    kv = pretrain.text_tower.project(tokens)
    text = pretrain.tokenize(TEXTS)
    embeds = pretrain.text_embeds(pretrain.encode_text(text))
    matches = pretrain.match(tokens, TEXTS)
    first_words = pretrain.predict_words(kv, text, torch.eye(text.ids.shape[1]).bool()[[1] * 4])
    seen, questions = vqa.encode_image(samples["image"]), vqa.tokenize(TEXTS)
    states, mask = vqa.read_questions(seen, questions)
    classes = nlvr.predict(samples)["predictions"]
    for row in range(4):
        own = slice(row, row + 1)
        alone = pretrain.tokenize(TEXTS[own])
        place = torch.eye(alone.ids.shape[1]).bool()[[1]]
        kv = pretrain.text_tower.project(tokens[own])
        asked = {k: v[own] for k, v in samples.items() if k.startswith(("image", "text"))}
        pairs = [
            (embeds[own], pretrain.text_embeds(pretrain.encode_text(alone))),
            (matches[own], pretrain.match(tokens[own], TEXTS[own])),
            (first_words[own], pretrain.predict_words(kv, alone, place)),
            (
                states[own][mask[own].bool()],
                vqa.read_questions(seen[own], vqa.tokenize(TEXTS[own]))[0][0],
            ),
            (classes[own], nlvr.predict(asked)["predictions"]),
        ]
        for together, single in pairs:
            torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-5)
