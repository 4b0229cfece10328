"""Classes that a model gives to images with texts."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from lavis_lite import registry
from lavis_lite.errors import DataError
from lavis_lite.metrics.columns import Chief, Column
from lavis_lite.metrics.counts import row_count
from lavis_lite.metrics.rows import Row, predict_rows, refuse_not_finite
from lavis_lite.modules.interfaces import Classifies, Context, Evaluation, EvaluationData
from lavis_lite.modules.output import Samples

log = logging.getLogger(__name__)


@registry.register("metric", "classification")
class Classification:
    """Accuracy in % of the class that a model predicts; also by class where classes have names.

    The model's `predict(samples)` gives `predictions`, (B, C) logits or (B,) classes.
    """

    requires = (Classifies,)
    title = "Classes of images with texts, in %"
    columns: Sequence[Column] = (Column("accuracy", "accuracy", unit="%"),)
    chief = Chief("accuracy", "classes found", "%")
    counted = "texts"

    def evaluate(self, model: Classifies, data: EvaluationData, runner: Context) -> Evaluation:
        """Figures in %, and per row its class, the predicted one and its probability."""
        names = getattr(data.dataset, "class_names", None)

        def predict(samples: Samples, rows: list[Row]) -> list[Row]:
            predicted = model.predict(samples)["predictions"]
            refuse_not_finite(predicted, "the logits of the classes")
            return [_judged(row, one) for row, one in zip(rows, predicted, strict=True)]

        rows = predict_rows(model, data, runner, predict)
        counts = {self.counted: row_count(data, [row["index"] for row in rows])}
        return Evaluation(self._figures(rows, names), rows, counts=counts)

    def _figures(self, rows: list[Row], names: Sequence[str] | None) -> dict[str, float]:
        figures = {"accuracy": percent([row["correct"] for row in rows])}
        by_class: dict[int, list[bool]] = defaultdict(list)
        for row in rows:
            by_class[row["label"]].append(row["correct"])
        if names is not None:
            figures |= {f"accuracy_{names[c]}": percent(by_class[c]) for c in sorted(by_class)}
        return figures


@registry.register("metric", "nlvr")
class Nlvr(Classification):
    """Accuracy in % on statements about two images, and NLVR2's consistency.

    `consistency` is the share of statements that are judged rightly for every pair of images that
    they come with. Reference: https://arxiv.org/abs/1811.00491, section 5.
    """

    title = "Statements about two images, in %"
    columns = (
        Column("accuracy", "accuracy", unit="%"),
        Column("consistency", "consistency", unit="%"),
    )
    chief = Chief("accuracy", "statements judged right", "%")
    counted = "statements"

    def _figures(self, rows: list[Row], names: Sequence[str] | None) -> dict[str, float]:
        statements: dict[str, bool] = {}
        for row in rows:
            text = row["text"]
            statements[text] = statements.get(text, True) and row["correct"]
        consistency = percent(list(statements.values()))
        return {**super()._figures(rows, names), "consistency": consistency}


def percent(flags: list[bool]) -> float:
    """The share of true ones."""
    return 100 * sum(flags) / len(flags)


def _judged(row: Row, predicted: Tensor) -> Row:
    """A row beside its prediction: (C,) logits, or () the class."""
    if row.get("label") is None:
        raise DataError(f"{row['key']}: no `label`, which classification is measured against")
    found: Row = {"text": row["text_input"], "label": int(row["label"])}
    if predicted.ndim:
        probabilities = predicted.float().softmax(0)
        found["probability"] = round(probabilities.max().item(), 5)
        predicted = torch.argmax(predicted)
    number = int(predicted)
    return {**found, "predicted": number, "correct": number == found["label"]}
