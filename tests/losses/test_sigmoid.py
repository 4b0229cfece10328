"""The pairwise sigmoid loss against a sum written out, one pair at a time."""

from __future__ import annotations

import math

import pytest
import torch
from bench_models import FeatureTowers, features
from torch import nn

from lavis_lite.losses.shared import Shared
from lavis_lite.losses.sigmoid import PairwiseSigmoid, pairwise_sigmoid


@pytest.mark.parametrize("negatives", ["global", "local"])
def test_it_equals_the_sum_over_pairs(negatives: str) -> None:
    model = FeatureTowers(6)
    model.logit_bias = nn.Parameter(torch.tensor(-2.0))
    samples = features(5, 6)
    image = nn.functional.normalize(samples["image"], dim=1)
    text = nn.functional.normalize(torch.stack(samples["text_input"]), dim=1)
    expected = 0.0
    for i in range(5):
        for j in range(5):
            logit = float(image[i] @ text[j]) / 0.2 - 2.0
            probability = 1 / (1 + math.exp(-logit))
            expected -= math.log(probability if i == j else 1 - probability) / 5
    loss = PairwiseSigmoid(negatives)(Shared(model, samples))  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    loss.backward()
    assert model.logit_bias.grad != 0
    assert model.temp.grad != 0


def test_the_loss_of_two_orthogonal_pairs_by_hand() -> None:
    # Own logit 1 / t + b = 1, other logit b = -1: both cost softplus(-1).
    axes = torch.eye(2)
    loss = pairwise_sigmoid(axes, axes, temperature=0.5, bias=-1.0)
    assert loss.item() == pytest.approx(2 * math.log1p(math.exp(-1)))
    # The second image alone, whose text is the second one of the joined batch.
    part = pairwise_sigmoid(axes[1:], axes, 0.5, -1.0, first=1, reduction="sum")
    assert part.item() == pytest.approx(2 * math.log1p(math.exp(-1)))


def test_a_pair_with_a_low_bias_costs_what_the_bias_says() -> None:
    # One pair, at right angles: softplus(10) for the one true logit of -10.
    model = FeatureTowers(2)
    model.logit_bias = nn.Parameter(torch.tensor(-10.0))
    samples = {
        "image": torch.tensor([[1.0, 0.0]]),
        "text_input": [torch.tensor([0.0, 1.0])],
    }
    loss = PairwiseSigmoid()(Shared(model, samples))
    assert loss.item() == pytest.approx(math.log1p(math.exp(10)), abs=1e-5)
