"""Classes found by their names alone: images and prompts compared in the joint space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lavis_lite import registry
from lavis_lite.errors import ConfigError
from lavis_lite.metrics.classification import percent
from lavis_lite.metrics.columns import Chief, Column
from lavis_lite.metrics.counts import demand_numbers, row_count
from lavis_lite.metrics.pairs import evaluating, text_processor
from lavis_lite.metrics.rows import Row, predict_rows, refuse_not_finite
from lavis_lite.modules.interfaces import Context, Embeds, Evaluation, EvaluationData
from lavis_lite.modules.layers.similarity import cosines
from lavis_lite.modules.output import Samples

TEMPLATES = ("a photo of a {}",)


@registry.register("metric", "zero_shot_classification")
class ZeroShotClassification:
    """Accuracy in % of the class whose prompts are the most similar to an image.

    A class is the mean, of unit length again, of its prompts' embeddings. `top1` and `top5` count
    images whose class is among the first; of classes with equal similarity the first is taken.

    Args:
        templates: prompts, in which `{}` stands for the name of a class.
        class_names: in the order of the labels; by default the dataset's.
        text_batch_size: prompts that are encoded in one call.

    Reference: CLIP, https://arxiv.org/abs/2103.00020, section 3.1.4 (prompt ensembling).
    """

    requires = (Embeds,)
    title = "Classes by their names alone, accuracy in %"
    counted = "images"
    columns = (Column("top1", "top 1", unit="%"), Column("top5", "top 5", unit="%"))
    chief = Chief("top1", "classes found by their names alone", "%")

    def __init__(
        self,
        templates: list[str] | tuple[str, ...] = TEMPLATES,
        class_names: list[str] | None = None,
        text_batch_size: int = 256,
    ) -> None:
        self.templates = [templates] if isinstance(templates, str) else list(templates)
        if not self.templates:
            raise ConfigError("zero_shot_classification.templates: give at least one prompt")
        for template in self.templates:
            if "{}" not in template:
                raise ConfigError(
                    f"zero_shot_classification.templates: {template!r} has no {{}} for the name "
                    "of the class"
                )
        if text_batch_size < 1:
            raise ConfigError(
                f"zero_shot_classification.text_batch_size: {text_batch_size}; at least 1"
            )
        self.class_names = class_names
        self.text_batch_size = text_batch_size

    def evaluate(self, model: Embeds, data: EvaluationData, runner: Context) -> Evaluation:
        """Figures in %, and per image its class and the most similar one."""
        names = self.class_names or getattr(data.dataset, "class_names", None)
        if not names:
            raise ConfigError(
                "zero_shot_classification: the dataset has no names of classes; give class_names"
            )
        with evaluating(model, runner):
            classes = self._classes(model, data, list(names)).to(runner.device)
            demand_numbers(classes, "zero_shot_classification", "a prompt's embedding")

        def predict(samples: Samples, rows: list[Row]) -> list[Row]:
            embeds = model.image_features(model.encode_image(samples["image"]))
            refuse_not_finite(embeds, "an image's embedding")
            similarity = cosines(embeds.float(), classes).cpu()
            order = similarity.sort(dim=1, descending=True, stable=True)
            return [
                _judged(row, found, scores, names)
                for row, found, scores in zip(rows, order.indices, order.values, strict=True)
            ]

        rows = predict_rows(model, data, runner, predict)
        figures = {"top1": percent([row["correct"] for row in rows])}
        if len(names) > 5:
            figures["top5"] = percent([row["place"] <= 5 for row in rows])
        counts = {"images": row_count(data, [row["index"] for row in rows])}
        return Evaluation(figures, rows, counts=counts)

    def _classes(self, model: Embeds, data: EvaluationData, names: list[str]) -> Tensor:
        """(C, E) unit length."""
        process = text_processor(data)
        prompts = [
            process(template.replace("{}", name)) for name in names for template in self.templates
        ]
        parts = [
            model.text_features(model.encode_text(prompts[start : start + self.text_batch_size]))
            for start in range(0, len(prompts), self.text_batch_size)
        ]
        embeds = torch.cat(parts).float().unflatten(0, (len(names), len(self.templates)))
        return normalize(embeds.mean(dim=1), dim=-1)


def _judged(row: Row, order: Tensor, scores: Tensor, names: Sequence[str]) -> Row:
    label = int(row["label"])
    if not 0 <= label < len(names):
        raise ConfigError(
            f"zero_shot_classification: label {label} of {row['key']}, for {len(names)} names"
        )
    best = int(order[0])
    return {
        **{
            "label": label,
            "predicted": best,
            "class": names[label],
            "predicted_class": names[best],
        },
        "similarity": round(scores[0].item(), 5),
        "place": 1 + order.tolist().index(label),
        "correct": best == label,
    }
