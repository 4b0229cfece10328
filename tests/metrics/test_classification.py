"""The metrics `classification` and `nlvr`: classes, names, consistency."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from two_processes import run_on_processes

from lavis_lite.errors import DataError
from lavis_lite.metrics.classification import Classification, Nlvr

RUNNER = SimpleNamespace(device=torch.device("cpu"), seed=0, autocast=contextlib.nullcontext)
TEXTS = ["both are dogs", "both are dogs", "one is red", "one is red", "no cats"]
LABELS = [1, 0, 2, 0, 1]
PREDICTED = [1, 0, 1, 0, 1]


class Data:
    def __init__(self, batch_size: int = 2, names: bool = True, labels: bool = True) -> None:
        rows = [
            {"text_input": t, "key": f"k{n}", "image_id": n, **({"label": c} if labels else {})}
            for n, (t, c) in enumerate(zip(TEXTS, LABELS, strict=True))
        ]

        class Rows(list):
            class_names = ("no", "maybe", "yes") if names else None

        self.dataset = Rows(rows)
        self.batch_size = batch_size

    def batches(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(indices), self.batch_size):
            part = list(indices[start : start + self.batch_size])
            yield {"label": torch.tensor([LABELS[n] for n in part]), "index": part}


class Classifier(nn.Module):
    """Gives logits, or classes themselves."""

    def __init__(self, logits: bool = True) -> None:
        super().__init__()
        self.logits = logits

    def predict(self, samples: dict[str, Any]) -> dict[str, Tensor]:
        classes = torch.tensor([PREDICTED[n] for n in samples["index"]])
        scores = 2.0 * nn.functional.one_hot(classes, 3)
        return {"predictions": scores if self.logits else classes, "targets": samples["label"]}


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("logits", [True, False])
def test_accuracy_over_all_and_by_class(batch_size: int, logits: bool) -> None:
    result = Classification().evaluate(Classifier(logits), Data(batch_size), RUNNER)
    assert result.metrics == pytest.approx(
        {"accuracy": 80, "accuracy_no": 100, "accuracy_maybe": 100, "accuracy_yes": 0}
    )
    row = dict(result.predictions[2])
    probability = row.pop("probability", None)
    assert row == {
        **{"key": "k2", "index": 2, "text": "one is red"},
        **{"label": 2, "predicted": 1, "correct": False},
    }
    expected = torch.tensor([0.0, 2.0, 0.0]).softmax(0)[1].item()
    assert probability == (pytest.approx(expected, abs=1e-5) if logits else None)


def test_classes_without_names_are_not_listed() -> None:
    assert set(Classification().evaluate(Classifier(), Data(names=False), RUNNER).metrics) == {
        "accuracy"
    }


def test_consistent_is_a_statement_judged_rightly_each_time() -> None:
    figures = Nlvr().evaluate(Classifier(), Data(names=False), RUNNER).metrics
    assert figures == pytest.approx({"accuracy": 80, "consistency": 100 * 2 / 3})


def test_a_row_without_a_label_is_named() -> None:
    with pytest.raises(DataError, match="k0: no `label`"):
        Classification().evaluate(Classifier(), Data(labels=False), RUNNER)


def _evaluate() -> Any:
    return Nlvr().evaluate(Classifier(), Data(), RUNNER)


def test_two_processes_judge_each_row_once() -> None:
    assert run_on_processes(_evaluate, world_size=2) == [_evaluate()] * 2
