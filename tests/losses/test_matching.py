"""ITM: which negatives are drawn, and what they cost."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench_models import CAPTIONS, batch, bench_model
from torch import Tensor

from lavis_lite import registry
from lavis_lite.losses.matching import (
    ImageTextMatching,
    Pool,
    draw_negatives,
    hard_negative_weights,
    itm_cross_entropy,
)
from lavis_lite.losses.shared import Shared


def itm(negatives: Any = "hard", **options: Any) -> ImageTextMatching:
    return ImageTextMatching(negatives, **options)


@pytest.fixture(scope="module")
def model() -> Any:
    return bench_model("blip_retrieval")


def by_hand(model: Any, samples: dict[str, Any], pairs: list[tuple[int, int]]) -> Tensor:
    """Cross-entropies of (image, text) pairs, each pair alone; a pair of one number matches."""
    losses = []
    for image, text in pairs:
        tokens = model.encode_image(samples["image"][image : image + 1])
        logits = model.match(tokens, [samples["text_input"][text]])
        losses.append(F.cross_entropy(logits, torch.tensor([int(image == text)])))
    return torch.stack(losses)


@pytest.mark.parametrize("negatives", ["hard", "random"])
def test_the_loss_is_the_mean_over_true_pairs_and_two_negatives_each(
    negatives: str, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, samples = itm(negatives), batch(5, step=3)
    drawn = {}

    def choose(*args: Any) -> Any:
        drawn["images"], drawn["texts"] = ImageTextMatching._choose(loss, *args)
        return drawn["images"], drawn["texts"]

    monkeypatch.setattr(loss, "_choose", choose)
    value = loss(Shared(model, samples))
    images, texts = drawn["images"].tolist(), drawn["texts"].tolist()
    pairs = [(i, i) for i in range(5)]
    pairs += [(image, i) for i, image in enumerate(images)]
    pairs += [(i, text) for i, text in enumerate(texts)]
    assert value.item() == pytest.approx(by_hand(model, samples, pairs).mean().item(), abs=1e-5)


def test_all_pairs_weigh_matches_and_mismatches_half_and_half(model: Any) -> None:
    samples = batch(4)
    pairs = [(i, j) for i in range(4) for j in range(4)]
    losses = by_hand(model, samples, pairs).view(4, 4)
    true = torch.eye(4, dtype=torch.bool)
    expected = (losses[true].mean() + losses[~true].mean()) / 2
    assert itm("all")(Shared(model, samples)).item() == pytest.approx(expected.item(), abs=1e-5)


def test_all_pairs_of_one_image_match(model: Any) -> None:
    samples = batch(3)
    samples["image_id"] = torch.tensor([5, 5, 6])
    logits = [
        [
            model.match(model.encode_image(samples["image"][i : i + 1]), [samples["text_input"][j]])
            for j in range(3)
        ]
        for i in range(3)
    ]
    same = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    losses = {
        (i, j): F.cross_entropy(logits[i][j], torch.tensor([int((i, j) in same)])).item()
        for i in range(3)
        for j in range(3)
    }
    match = sum(losses[p] for p in same) / 5
    other = sum(value for p, value in losses.items() if p not in same) / 4
    assert itm("all")(Shared(model, samples)).item() == pytest.approx((match + other) / 2, abs=1e-5)


@pytest.mark.parametrize("negatives", ["hard", "random"])
def test_a_negative_never_shows_the_same_image(negatives: str, model: Any) -> None:
    ids = torch.tensor([1, 1, 2, 3, 3, 3, 4, 5])
    loss = itm(negatives)
    for step in range(40):
        shared = Shared(model, {**batch(8), "image_id": ids, "step": step})
        for drawn in loss._choose(shared, Pool(shared, "global")):
            assert (ids[drawn] != ids).all()


def test_matching_costs_by_hand() -> None:
    # Two pairs; the second one has no negatives. Column 1 is a match.
    sure, unsure = [0.0, math.log(3)], [0.0, 0.0]
    logits = torch.tensor([[sure, unsure], [sure, unsure], [unsure, unsure]])
    found = itm_cross_entropy(logits, torch.tensor([True, False]))
    assert found.labels.tolist() == [[1, 1], [0, 0], [0, 0]]
    assert found.num_rows.item() == 4
    expected = -math.log(3 / 4) - 2 * math.log(1 / 2) - math.log(1 / 4)
    assert found.total.item() == pytest.approx(expected)


def test_a_draw_takes_the_best_of_log_weight_plus_gumbel_noise() -> None:
    half = torch.full((1, 3), 0.5)
    valid = torch.tensor([[False, True, True]])
    assert draw_negatives(torch.tensor([[9.0, 1.0, 2.0]]), valid, half).tolist() == [2]
    # Noise u = 0.9 is worth -log(-log u) - -log(-log 0.5) = 1.88 in log weight: more than log 2.
    uniform = torch.tensor([[0.5, 0.9, 0.5]])
    assert draw_negatives(torch.tensor([[9.0, 1.0, 2.0]]), valid, uniform).tolist() == [1]
    assert draw_negatives(torch.tensor([[9.0, 1.0, 7.0]]), valid, uniform).tolist() == [2]
    # A weight of 0 still wins against a column that is not valid.
    assert draw_negatives(torch.tensor([[9.0, 0.0, 0.0]]), valid, uniform).tolist() == [1]


def test_hard_negatives_weigh_by_similarity() -> None:
    weights = hard_negative_weights(torch.eye(2), torch.eye(2), temperature=0.5, epsilon=0.01)
    s = 1 / (1 + math.exp(-2))
    expected = torch.tensor([[s, 1 - s], [1 - s, s]]) + 0.01
    torch.testing.assert_close(weights, expected)


def test_draws_follow_the_weights() -> None:
    weights = torch.tensor([[9.0, 1.0, 2.0, 5.0]] * 4)
    samples = {"image": torch.zeros(4, 1), "text_input": [""] * 4}
    counts = torch.zeros(4, 4)
    steps = 4000
    for step in range(steps):
        pool = Pool(Shared(None, {**samples, "step": step}), "global")
        counts[torch.arange(4), pool.draw(weights, 0)] += 1
    expected = weights.clone().fill_diagonal_(0)
    expected /= expected.sum(dim=1, keepdim=True)
    deviation = (expected * (1 - expected) / steps).sqrt()
    assert (counts.diagonal() == 0).all()
    assert ((counts / steps - expected).abs() <= 4 * deviation).all()


def test_draws_are_a_function_of_the_step_and_the_seed(model: Any) -> None:
    loss = itm("random")

    def draw(**samples: int) -> list[list[int]]:
        shared = Shared(model, {**batch(8), **samples})
        return [d.tolist() for d in loss._choose(shared, Pool(shared, "global"))]

    assert draw(step=1, seed=2) == draw(step=1, seed=2)
    assert draw(step=1, seed=2) != draw(step=2, seed=2)
    assert draw(step=1, seed=2) != draw(step=1, seed=3)
    images, texts = draw(step=1)
    assert images != texts


def test_hard_negatives_are_the_similar_ones() -> None:
    model = bench_model("blip_retrieval")
    with torch.no_grad():
        model.temp.fill_(0.02)  # so sharp that the most similar one is always drawn
    shared = Shared(model, batch(6))
    # Every text is most like its own image, and somewhat like the next one.
    shared.__dict__["image_features"] = torch.eye(6)
    shared.__dict__["text_features"] = 0.9 * torch.eye(6) + 0.43 * torch.eye(6).roll(1, dims=1)
    images, texts = itm(epsilon=0.0)._choose(shared, Pool(shared, "global"))
    assert images.tolist() == [1, 2, 3, 4, 5, 0]
    assert texts.tolist() == [5, 0, 1, 2, 3, 4]


def test_no_weight_is_too_small_to_draw(model: Any) -> None:
    samples = {"image": torch.zeros(3, 1), "text_input": [""] * 3}
    pool = Pool(Shared(None, samples), "global")
    weights = torch.tensor([[1.0, 0.0, 0.0]] * 3)
    for _ in range(20):
        assert (pool.draw(weights, 0) != torch.arange(3)).all()


@pytest.mark.parametrize("negatives", ["hard", "random", "all"])
@pytest.mark.parametrize("count", [1, 4])
def test_a_batch_of_one_image_alone_has_finite_loss_and_gradients(
    negatives: str, count: int
) -> None:
    model = bench_model("blip_retrieval")
    samples = {**batch(count), "image_id": torch.zeros(count, dtype=torch.long)}
    value = itm(negatives)(Shared(model, samples))
    value.backward()
    assert value.isfinite()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    if negatives != "all":  # what remains are the true pairs
        losses = by_hand(model, samples, [(i, i) for i in range(count)])
        assert value.item() == pytest.approx(losses.mean().item(), abs=1e-5)


def test_rows_without_negatives_do_not_count() -> None:
    model = bench_model("blip_retrieval")
    loss = itm("random")
    samples = {**batch(3), "image_id": torch.tensor([1, 1, 1])}
    whole = loss(Shared(model, samples)).item()
    assert whole == pytest.approx(by_hand(model, samples, [(0, 0), (1, 1), (2, 2)]).mean().item())


def test_gradients_reach_images_texts_and_head(model: Any) -> None:
    for parameter in model.parameters():
        parameter.grad = None
    itm()(Shared(model, batch(4))).backward()
    for part in (model.visual_encoder.patches, model.itm_head):
        assert part.weight.grad.abs().sum() > 0
    assert model.text_encoder.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_the_prior_is_what_a_model_pays_that_knows_one_in_three_matches() -> None:
    assert itm().prior == pytest.approx(0.6365, abs=1e-4)
    assert itm("all").prior is None


def test_the_prior_is_told_of_a_loss_that_is_not_built() -> None:
    told = registry.entry("loss", "itm").result.prior_of  # type: ignore[union-attr]
    assert told(scope="local", epsilon=0.1) == itm().prior
    assert told(negatives="all") is None


@pytest.mark.parametrize("negatives", ["hard", "random", "all"])
def test_the_loss_is_fp32_under_autocast(negatives: str, model: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        value = itm(negatives)(Shared(model, batch(4)))
    assert value.dtype == torch.float32
    plain = itm(negatives)(Shared(model, batch(4)))
    assert value.item() == pytest.approx(plain.item(), rel=0.1)


# ---- the same numbers however texts are padded and batches are cut


def test_a_pair_s_logits_do_not_depend_on_its_batch(model: Any) -> None:
    samples = batch(8)
    with torch.no_grad():
        tokens = model.encode_image(samples["image"])
        together = model.match(tokens, samples["text_input"])
        alone = torch.cat(
            [model.match(tokens[i : i + 1], [text]) for i, text in enumerate(CAPTIONS)]
        )
    assert len({len(text.split()) for text in CAPTIONS}) > 3
    assert together.std() > 0.05  # else equality would say little
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_ranking_equals_matching_pair_by_pair(model: Any) -> None:
    samples = batch(3)
    texts = [CAPTIONS[0:4], CAPTIONS[2:6], CAPTIONS[4:8]]
    with torch.no_grad():
        tokens = model.encode_image(samples["image"])
        ranked = model.rank(tokens, texts)
        for i, row in enumerate(texts):
            single = model.match(tokens[i : i + 1].repeat(4, 1, 1), row)[:, 1]
            torch.testing.assert_close(ranked[i], single, atol=1e-5, rtol=0)


def test_text_features_do_not_depend_on_padding(model: Any) -> None:
    with torch.no_grad():
        together = model.text_features(model.encode_text(CAPTIONS))
        alone = torch.cat([model.text_features(model.encode_text([text])) for text in CAPTIONS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
