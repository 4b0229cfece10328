"""One caption per image of a dataset, with the references that it is measured against."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lavis_lite import distributed
from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import ConfigError, DataError, suggest
from lavis_lite.metrics.pairs import (
    evaluating,
    image_batches,
    read_pairs,
    text_processor,
)
from lavis_lite.modules.interfaces import Context, EvaluationData

Row = dict[str, Any]


def generate_captions(
    model: Any,
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
                samples["image_tokens"] = model.encode_image(batch.image)
            captions = model.generate(samples, **options, **_seeds(model, keys, runner.seed))
            part = [
                {
                    **vars(pairs.images[position]),
                    "caption": caption,
                    "references": [text for text in references[position] if text.strip()],
                }
                for position, caption in zip(batch.positions, captions, strict=True)
            ]
            if match:
                texts = [process(caption) for caption in captions]
                fits = match_probability(model, samples["image_tokens"], texts)
                for row, probability in zip(part, fits.tolist(), strict=True):
                    row["match"] = round(probability, 5)
            rows += part
    rows = [row for part in distributed.all_gather_object(rows) for row in part]
    if not rows:
        raise DataError("captions: none of the images could be read")
    return rows


def check_generation(model: Any, options: Mapping[str, Any]) -> None:
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


def _seeds(model: Any, keys: list[str], seed: int) -> dict[str, list[int]]:
    if "seeds" not in inspect.signature(model.generate).parameters:
        return {}
    return {"seeds": [stable_hash("caption", seed, key) for key in keys]}


def match_probability(model: Any, image_tokens: Tensor, texts: list[str]) -> Tensor:
    """(B, N, D) and B texts -> (B,) probability that each text fits its image."""
    return model.match(image_tokens, texts).float().softmax(dim=-1)[:, 1].cpu()
