"""Cross-entropies with soft targets and with a teacher, by hand numbers."""

from __future__ import annotations

import math

import pytest
import torch

from lavis_lite.losses.cross_entropy import distilled_cross_entropy, reduced, soft_cross_entropy

# Logits whose softmax is (1/4, 3/4) and (1/2, 1/2).
LOGITS = torch.tensor([[0.0, math.log(3)], [1.0, 1.0]])


def test_soft_targets_weigh_the_log_probabilities() -> None:
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    expected = -(0.5 * math.log(1 / 4) + 0.5 * math.log(3 / 4)) - math.log(1 / 2)
    assert soft_cross_entropy(LOGITS, targets).item() == pytest.approx(expected)
    mean = soft_cross_entropy(LOGITS, targets, "mean")
    assert mean.item() == pytest.approx(expected / 2)


def test_without_a_teacher_the_labels_count_alone() -> None:
    loss = distilled_cross_entropy(LOGITS, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 2)) / 2)


def test_alpha_mixes_labels_and_teacher() -> None:
    teacher = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    hard = -(math.log(3 / 4) + math.log(1 / 2))
    soft = -(math.log(1 / 4) + math.log(1 / 2))
    loss = distilled_cross_entropy(LOGITS, torch.tensor([1, 0]), teacher, 0.4, reduction="sum")
    assert loss.item() == pytest.approx(0.6 * hard + 0.4 * soft)


def test_label_smoothing_spreads_a_part_of_the_label() -> None:
    loss = distilled_cross_entropy(LOGITS[:1], torch.tensor([1]), label_smoothing=0.2)
    assert loss.item() == pytest.approx(-(0.9 * math.log(3 / 4) + 0.1 * math.log(1 / 4)))


def test_the_mean_of_no_rows_is_zero() -> None:
    assert reduced(torch.tensor(0.0), 0, "mean").item() == 0
    assert reduced(torch.tensor(6.0), torch.tensor(3), "mean").item() == 2
    assert reduced(torch.tensor(6.0), 3, "sum").item() == 6
