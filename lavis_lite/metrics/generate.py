"""One caption per image of a dataset, with the references that it is measured against."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from lavis_lite import distributed
from lavis_lite.data.counts import Counts
from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.metrics.counts import demand_some, not_finite, set_aside
from lavis_lite.metrics.finite import ask_each
from lavis_lite.metrics.pairs import (
    count_images,
    evaluating,
    image_batches,
    read_pairs,
    text_processor,
)
from lavis_lite.modules.interfaces import Context, EvaluationData, Generates, Matches

Row = dict[str, Any]


def generate_captions(
    model: Generates,
    data: EvaluationData,
    runner: Context,
    options: Mapping[str, Any],
    *,
    match: bool = False,
) -> list[Row]:
    """Let a model describe every readable image once, whatever the batch and world size.

    What is sampled depends on the runner's seed and the image's key, not on the batch.

    Args:
        model: generates.
        data: images, whose texts are the references.
        runner: device, precision, seed.
        options: arguments of ``model.generate``.
        match: also ask the model how probable it is that the caption fits.

    An image for which the model gives no numbers is set aside.

    Returns:
        Rows ``key``, ``image_id``, ``index``, ``caption``, ``references`` (as the dataset has
        them; empty ones left out) and, if asked for, ``match``; in the order of the dataset.

    Raises:
        DataError: no image can be read.
    """
    rows: list[Row] = []
    with evaluating(model, runner):
        pairs = read_pairs(data)
        references = pairs.texts_by_image()
        process = text_processor(data)
        for batch in image_batches(data, pairs, runner):
            keys = [pairs.images[position].key for position in batch.positions]
            samples = {"image": batch.image}
            if match:  # a model that takes its own tokens encodes the images only once
                samples["image_tokens"] = cast(Matches, model).encode_image(batch.image)
            captions = _captions(model, samples, options, _seeds(model, keys, runner.seed))
            part = [
                {
                    **vars(pairs.images[position]),
                    "caption": caption,
                    "references": [text for text in references[position] if text.strip()],
                }
                for position, caption in zip(batch.positions, captions, strict=True)
            ]
            if match:
                texts = [process(caption or "") for caption in captions]
                fits = match_probability(cast(Matches, model), samples["image_tokens"], texts)
                for row, probability in zip(part, fits.tolist(), strict=True):
                    row["match"] = round(probability, 5)
            rows += _described(data, part)
    rows = [row for part in distributed.all_gather_object(rows) for row in part]
    demand_some(count_images(data, pairs, [row["index"] for row in rows]), "captions")
    return rows


def count_described(data: EvaluationData, rows: list[Row], scored: list[Row], rule: str) -> Counts:
    """Count the images whose captions are scored.

    Args:
        data: where the images are from.
        rows: of all images that were described.
        scored: those that figures are of.
        rule: why the others are left out.
    """
    used = {row["index"] for row in scored}
    left_out = {rule: [row["index"] for row in rows if row["index"] not in used]}
    return count_images(data, read_pairs(data), used, left_out)


def _captions(
    model: Generates,
    samples: dict[str, Any],
    options: Mapping[str, Any],
    seeds: dict[str, list[int]],
) -> list[str | None]:
    def ask(rows: list[int]) -> list[str]:
        chosen = samples if len(rows) == size else {k: v[rows] for k, v in samples.items()}
        own = {name: [values[row] for row in rows] for name, values in seeds.items()}
        return model.generate(chosen, **options, **own)

    size = len(samples["image"])
    return ask_each(ask, size)


def _described(data: EvaluationData, rows: list[Row]) -> list[Row]:
    """The rows with a caption and a probability that is a number; the others are set aside."""
    good = []
    for row in rows:
        what = "the logits of a text" if row["caption"] is None else "the probability of a match"
        if row["caption"] is not None and math.isfinite(row.get("match", 0.0)):
            good.append(row)
        else:
            set_aside(data, row["index"], row["key"], not_finite(what))
    return good


def check_generation(model: Generates, options: Mapping[str, Any]) -> None:
    """Refuse options that ``model.generate`` does not take.

    Raises:
        ConfigError: with the nearest option that it does take.
    """
    parameters = inspect.signature(model.generate).parameters
    known = [name for name in parameters if name not in ("samples", "seeds")]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in options:
            if name not in known:
                raise ConfigError(
                    f"generate.{name}: {type(model).__name__}.generate takes no {name!r}."
                    f"{suggest(name, known)} It takes: {', '.join(known)}"
                )
    if options.get("num_captions", 1) != 1:
        raise ConfigError(
            f"generate.num_captions: {options['num_captions']}; one caption per image is scored"
        )


def _seeds(model: Generates, keys: list[str], seed: int) -> dict[str, list[int]]:
    if "seeds" not in inspect.signature(model.generate).parameters:
        return {}
    return {"seeds": [stable_hash("caption", seed, key) for key in keys]}


def match_probability(model: Matches, image_tokens: Tensor, texts: list[str]) -> Tensor:
    """(B, N, D) and B texts -> (B,) probability that each text fits its image."""
    return model.match(image_tokens, texts).float().softmax(dim=-1)[:, 1].cpu()
