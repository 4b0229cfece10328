"""Image-text matching: a model has to tell an image's own text from another image's text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
from torch import Tensor

from lavis_lite import distributed, registry
from lavis_lite.data.counts import Counts
from lavis_lite.data.seeding import generator
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.metrics.columns import Chief, Column
from lavis_lite.metrics.counts import demand_some, not_finite, set_aside
from lavis_lite.metrics.generate import match_probability
from lavis_lite.metrics.pairs import (
    Pairs,
    count_images,
    evaluating,
    image_batches,
    read_pairs,
    text_processor,
)
from lavis_lite.modules.interfaces import Context, Evaluation, EvaluationData, Matches


@registry.register("metric", "itm")
class ImageTextMatching:
    """Every image with its own first text and with a text of another image, drawn once.

    Figures in [0, 1]: ``accuracy`` at probability 0.5 over both, ``auc`` (chance that a true pair
    has a higher probability than a false one, ties half), mean probability ``matched`` of true and
    ``mismatched`` of false pairs. An empty text is none, and an image without a text is left out;
    an image whose probability is not finite is set aside.

    Args:
        captions: a ``predictions/caption.jsonl`` of another run over the same data: its captions
            are scored too, row by row (mean probability as ``generated``).
        seed: which text an image is falsely paired with.
    """

    requires = (Matches,)
    title = "Matching images with texts"
    counted = "images"
    columns = (
        Column("accuracy", "accuracy", digits=3),
        Column("auc", "AUC", digits=3),
        Column("matched", "true pairs", "mean probability", digits=3),
        Column("mismatched", "false pairs", "mean probability", digits=3, better=-1),
        Column("generated", "generated", "mean probability", digits=3),
    )
    chief = Chief("auc", "AUC, true against false pairs", "%", factor=100)

    def __init__(self, captions: str | None = None, seed: int = 0) -> None:
        self.captions = captions
        self.seed = seed

    def evaluate(self, model: Matches, data: EvaluationData, runner: Context) -> Evaluation:
        """Figures in [0, 1], and per image its texts with their probabilities."""
        captions = _read_captions(self.captions)
        rows: list[dict[str, Any]] = []
        with evaluating(model, runner):
            known = read_pairs(data)
            process = text_processor(data)
            pairs, left_out = known.with_texts(process)
            alone = {"no text": left_out["no text"]}
            if not pairs.images:
                demand_some(count_images(data, known, [], alone), "itm")
            own = [texts[0] for texts in pairs.texts_by_image()]
            other = _mismatched(pairs, own, self.seed)
            for batch in image_batches(data, pairs, runner):
                tokens = model.encode_image(batch.image)
                part = [
                    {**vars(pairs.images[p]), "text": own[p], "other_text": other[p]}
                    for p in batch.positions
                ]
                for name in ("text", "other_text"):
                    _score(model, tokens, part, name, process)
                written = [row for row in part if row["key"] in captions]
                for row in written:
                    row["caption"] = captions[row["key"]]
                places = [n for n, row in enumerate(part) if "caption" in row]
                if places:
                    _score(model, tokens[places], written, "caption", process)
                rows += _finite(data, part)
        rows = [row for part in distributed.all_gather_object(rows) for row in part]
        counted = count_images(data, known, [row["index"] for row in rows], alone)
        demand_some(counted, "itm")
        return _summary(rows, counted)


def _finite(data: EvaluationData, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose probabilities are numbers; the others are set aside."""
    good = []
    for row in rows:
        if all(math.isfinite(value) for key, value in row.items() if key.endswith("_match")):
            good.append(row)
        else:
            set_aside(data, row["index"], row["key"], not_finite("the probability of a match"))
    return good


def _read_captions(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
        return {row["key"]: row["caption"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"itm.captions: {path} is no predictions/caption.jsonl: {error!r}"
        ) from None


def _mismatched(pairs: Pairs, own: list[str], seed: int) -> list[str]:
    """Return for each image the text of the next image, in a sampled order, with another text."""
    if len(set(own)) < 2:
        raise DataError("itm: needs images with different texts to pair them falsely")
    order = generator("itm", seed).permutation(len(pairs.images)).tolist()
    place = {image: number for number, image in enumerate(order)}

    def another(image: int) -> Iterator[str]:
        for step in range(1, len(order)):
            yield own[order[(place[image] + step) % len(order)]]

    return [
        next(text for text in another(image) if text != own[image]) for image in range(len(order))
    ]


def _score(
    model: Matches,
    image_tokens: Tensor,
    rows: list[dict[str, Any]],
    field: str,
    process: Callable[[str], str],
) -> None:
    """Add to each row the probability that its ``field`` fits, as ``<field>_match``."""
    texts = [process(row[field]) for row in rows]
    for row, fit in zip(rows, match_probability(model, image_tokens, texts).tolist(), strict=True):
        row[f"{field}_match"] = round(fit, 5)


def _summary(rows: list[dict[str, Any]], counted: Counts) -> Evaluation:
    true = numpy.array([row["text_match"] for row in rows])
    false = numpy.array([row["other_text_match"] for row in rows])
    figures = {
        "accuracy": float((numpy.mean(true > 0.5) + numpy.mean(false <= 0.5)) / 2),
        "auc": area_under_curve(true, false),
        "matched": float(true.mean()),
        "mismatched": float(false.mean()),
    }
    counts = {"images": counted}
    if generated := [row["caption_match"] for row in rows if "caption_match" in row]:
        figures["generated"] = sum(generated) / len(generated)
        lacking = counted.used - len(generated)
        rules = {"no caption in the file": lacking} if lacking else {}
        counts["generated captions"] = Counts(counted.used, len(generated), left_out=rules)
    return Evaluation(figures, rows, counts=counts)


def area_under_curve(true: numpy.ndarray, false: numpy.ndarray) -> float:
    """Chance that a drawn ``true`` score exceeds a drawn ``false`` one, ties counted half."""
    ordered = numpy.sort(false)
    below = numpy.searchsorted(ordered, true, side="left")
    not_above = numpy.searchsorted(ordered, true, side="right")
    return float((below + not_above).mean() / (2 * len(false)))
