"""ITC and InfoNCE against sums written out in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from bench_models import FeatureTowers, feature_towers, features
from torch import Tensor

from lavis_lite.losses.contrastive import (
    ImageTextContrast,
    InfoNce,
    info_nce,
    positives,
    row_contrast,
    soft_contrast,
    soft_itc,
)
from lavis_lite.losses.shared import Shared


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def itc_by_hand(
    model: Any, samples: dict[str, Any], queue: dict[str, Tensor], alpha: float, ids: bool
) -> float:
    """Sum over rows and columns, one at a time."""

    def embeds(towers: FeatureTowers, x: Tensor) -> np.ndarray:
        scaled = (x * towers.scale).detach().double().numpy()
        return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)

    temperature = model.temperature.item()
    texts = torch.stack(samples["text_input"])
    online = embeds(model, samples["image"]), embeds(model, texts)
    slow = embeds(model.momentum, samples["image"]), embeds(model.momentum, texts)
    count = len(texts)
    total = 0.0
    for mine, other, name in ((0, 1, "text_queue"), (1, 0, "image_queue")):
        columns = np.concatenate([slow[other], queue[name].T.double().numpy()])
        opinion = softmax(slow[mine] @ columns.T / temperature)
        log_p = np.log(softmax(online[mine] @ columns.T / temperature))
        for row in range(count):
            truth = np.zeros(len(columns))
            if ids:
                known = [*samples["image_id"].tolist(), *queue["idx_queue"][0].tolist()]
                same = [c for c, i in enumerate(known) if i == known[row]]
                truth[same] = 1 / len(same)
            else:
                truth[row] = 1
            target = alpha * opinion[row] + (1 - alpha) * truth
            total -= (target * log_p[row]).sum() / count
    return total / 2


def state(loss: ImageTextContrast) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in loss.queue.state_dict().items()}


@pytest.mark.parametrize("negatives", ["global", "local"])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("queue_size", [0, 5, 12])
def test_itc_equals_the_sum_written_out(alpha: float, queue_size: int, negatives: Any) -> None:
    model = feature_towers(6)
    loss = ImageTextContrast(queue_size, alpha, ramp=0, negatives=negatives, model=model)
    for step in range(3):
        samples = features(4, 6, seed=step)
        expected = itc_by_hand(model, samples, state(loss), alpha, ids=False)
        assert loss(Shared(model, samples)).item() == pytest.approx(expected, abs=1e-5)


def test_pairs_of_one_image_are_each_other_s_positives_when_asked() -> None:
    model = feature_towers(6)
    loss = ImageTextContrast(5, 0.4, ramp=0, same_image_positive=True, model=model)
    for step in range(3):
        samples = features(4, 6, seed=step, image_id=torch.tensor([7, 3, 7, step]))
        expected = itc_by_hand(model, samples, state(loss), 0.4, ids=True)
        assert loss(Shared(model, samples)).item() == pytest.approx(expected, abs=1e-5)


def test_pre_training_ignores_image_ids() -> None:
    model = feature_towers(6)
    values = [
        ImageTextContrast(0, 0.4, ramp=0, model=model)(
            Shared(model, features(4, 6, image_id=torch.tensor(ids)))
        )
        for ids in ([0, 1, 2, 3], [0, 0, 0, 0])
    ]
    assert values[0] == values[1]


def test_positives_spread_one_over_the_columns_of_the_same_image() -> None:
    spread = positives(torch.tensor([1, 2]), torch.tensor([1, 2, 1, -100]))
    assert spread.tolist() == [[0.5, 0, 0.5, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("progress", "alpha"), [(0.0, 0.0), (0.05, 0.2), (0.1, 0.4), (0.9, 0.4), (None, 0.4)]
)
def test_alpha_ramps_up_over_a_part_of_the_run(progress: float | None, alpha: float) -> None:
    model = feature_towers(6)
    samples = features(4, 6) if progress is None else features(4, 6, progress=progress)
    ramped = ImageTextContrast(0, 0.4, ramp=0.1, model=model)(Shared(model, samples))
    assert ramped.item() == pytest.approx(
        itc_by_hand(
            model,
            samples,
            {"text_queue": torch.zeros(6, 0), "image_queue": torch.zeros(6, 0)},
            alpha,
            ids=False,
        ),
        abs=1e-5,
    )


def test_the_queue_takes_what_the_momentum_copy_saw() -> None:
    model = feature_towers(6)
    loss = ImageTextContrast(8, model=model)
    samples = features(3, 6)
    loss(Shared(model, samples))
    expected = model.momentum.image_features(samples["image"])
    assert torch.equal(loss.queue.image_queue[:, :3], expected.T)
    assert loss.queue.queue_ptr.item() == 3


@pytest.mark.parametrize("count", [1, 3, 8, 13])
def test_any_batch_size_goes_through_a_queue_of_eight(count: int) -> None:
    model = feature_towers(6)
    loss = ImageTextContrast(8, same_image_positive=True, model=model)
    for step in range(4):
        value = loss(Shared(model, features(count, 6, seed=step)))
        assert value.isfinite()
    assert loss.queue.queue_ptr.item() == (4 * min(count, 8)) % 8


def test_evaluation_writes_nothing() -> None:
    model = feature_towers(6)
    loss = ImageTextContrast(8, model=model)
    before = state(loss)
    with torch.no_grad():
        loss(Shared(model, features(3, 6)))
    assert all(torch.equal(before[key], value) for key, value in state(loss).items())


def test_gradients_reach_the_online_towers_and_the_temperature_alone() -> None:
    model = feature_towers(6)
    ImageTextContrast(8, model=model)(Shared(model, features(3, 6))).backward()
    assert model.scale.grad is not None
    assert model.temp.grad is not None
    assert model.momentum.scale.grad is None


def test_info_nce_equals_the_sum_written_out() -> None:
    model = FeatureTowers(6)
    samples = features(5, 6)
    image = torch.nn.functional.normalize(samples["image"]).double().numpy()
    text = torch.nn.functional.normalize(torch.stack(samples["text_input"])).double().numpy()
    logits = image @ text.T / 0.2
    rows = [-np.log(softmax(x))[range(5), range(5)].mean() for x in (logits, logits.T)]
    value = InfoNce()(Shared(model, samples))
    assert value.item() == pytest.approx(sum(rows) / 2, abs=1e-5)


# Two unit vectors at a right angle, as images and as texts.
AXES = torch.eye(2)


def test_info_nce_of_orthogonal_pairs_is_what_the_temperature_says() -> None:
    # Every row: logit 1 / t for its own column and 0 for the other.
    loss = info_nce(AXES, AXES, temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert info_nce(AXES, AXES.flip(0), 0.5).item() == pytest.approx(math.log(1 + math.exp(2)))


def test_a_row_is_contrasted_with_all_columns_of_the_joined_batch() -> None:
    # One row, the last of three columns its own: logits 0, 0 and 1.
    columns = torch.tensor([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
    loss = row_contrast(AXES[:1], columns, 1.0, first=2)
    assert loss.item() == pytest.approx(math.log(2 + math.e) - 1)
    assert row_contrast(AXES, AXES, 1.0, reduction="sum").item() == pytest.approx(
        2 * math.log(1 + math.exp(-1))
    )


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_soft_itc_mixes_the_pairing_with_what_the_momentum_copy_finds(alpha: float) -> None:
    # The online features match (own logit 1, other 0); the copy's image features are swapped, so
    # that it takes each image for the other one, with probability s = sigmoid(1).
    s = 1 / (1 + math.exp(-1))
    target = alpha * (1 - s) + (1 - alpha)  # of the true pair
    expected = -target * math.log(s) - (1 - target) * math.log(1 - s)
    found = soft_contrast(AXES, AXES.flip(0), AXES, torch.eye(2), 1.0, alpha)
    assert found.loss.item() == pytest.approx(2 * expected)
    assert found.targets[0, 0].item() == pytest.approx(target)
    assert found.sims.tolist() == AXES.tolist()
    # A copy that agrees, in both directions.
    agrees = alpha * s + (1 - alpha)
    expected = -agrees * math.log(s) - (1 - agrees) * math.log(1 - s)
    both = soft_itc(AXES, AXES, AXES, AXES, 1.0, alpha)
    assert both.loss.item() == pytest.approx(expected)
    assert both.t2i.targets[1, 1].item() == pytest.approx(agrees)


@pytest.mark.parametrize("make", [ImageTextContrast, lambda model: InfoNce()])
def test_similarities_stay_fp32_under_autocast(make: Any) -> None:
    model = feature_towers(64)
    samples = features(16, 64)
    torch.manual_seed(0)
    plain = make(model=model)(Shared(model, samples))
    torch.manual_seed(0)
    loss = make(model=model)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(Shared(model, samples))
    assert mixed.dtype == torch.float32
    assert mixed.item() == plain.item()
