"""The four commands as functions from a session and images to rows of results."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavis_lite.cli.images import ImageBatch, Images, open_image
from lavis_lite.cli.output import Row
from lavis_lite.cli.session import Session
from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.io.paths import local_path
from lavis_lite.models.heatmap import overlay
from lavis_lite.modules.layers.similarity import cosines

Advance = Callable[[int], object]  # told how many more images are done


def caption(session: Session, images: Images, options: Namespace, done: Advance) -> Iterator[Row]:
    """A row per image: ``caption``, or ``captions`` where several are asked for."""
    generate = session.model.generate
    taken = inspect.signature(generate).parameters
    given = {
        "num_captions": options.num_captions,
        "num_beams": options.num_beams,
        "use_nucleus_sampling": options.sample or None,
        "top_p": options.top_p,
        "max_length": options.max_length,
        "min_length": options.min_length,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if refused := [name for name in given if name not in taken]:
        raise ConfigError(f"{type(session.model).__name__}.generate takes no {refused[0]}")
    count = given.get("num_captions", 1)
    for batch in images.batches(session.image, options.batch_size):
        seeds = {"seeds": [stable_hash("caption", options.seed, name) for name in batch.names]}
        own = seeds if "seeds" in taken else {}
        texts = generate({"image": batch.pixels.to(session.device)}, **given, **own)
        for number, name in enumerate(batch.names):
            mine = texts[number * count : (number + 1) * count]
            yield {"image": name, **({"caption": mine[0]} if count == 1 else {"captions": mine})}
        done(len(batch.names))


def match(session: Session, images: Images, options: Namespace, done: Advance) -> Iterator[Row]:
    """A row per image and text: ``match``, a probability, and ``cosine`` of their embeddings."""
    overlays = _Overlays(session, options)
    texts = [session.text(text) for text in options.texts]
    embeds = _text_embeds(session, texts)
    for batch in images.batches(session.image, options.batch_size):
        scores = _scores(session, batch, texts, embeds)
        for row, name in enumerate(batch.names):
            for column, text in enumerate(options.texts):
                found = {k: round(v[row, column].item(), 5) for k, v in scores.items()}
                found.pop("logit", None)
                yield {"image": name, "text": text, **found, **overlays(batch, row, column)}
        done(len(batch.names))


def search(session: Session, images: Images, options: Namespace, done: Advance) -> Iterator[Row]:
    """For each text a row per found image, the best first.

    The nearest by cosine are ordered by ``score``, the matching logit plus the cosine, as BLIP
    ranks; by what there is of the two where a model lacks one.
    """
    overlays = _Overlays(session, options)
    texts = [session.text(text) for text in options.texts]
    embeds = _text_embeds(session, texts)
    chosen, found = list(range(len(images.names))), {}
    if embeds is not None:
        near = _nearest(session, images, embeds, options, done)
        chosen = sorted({number for numbers in near for number in numbers})
    else:
        near = [chosen] * len(texts)
    for batch in images.batches(session.image, options.batch_size, chosen) if chosen else ():
        scores = _scores(session, batch, texts, embeds)
        for row, number in enumerate(batch.numbers):
            found[number] = {key: values[row].tolist() for key, values in scores.items()}
        done(0 if embeds is not None else len(batch.names))
    for column, text in enumerate(options.texts):
        rows = []
        for number in (number for number in near[column] if number in found):
            values = {key: scores[column] for key, scores in found[number].items()}
            score = sum(values[key] for key in ("logit", "cosine") if key in values)
            values.pop("logit", None)
            rows.append((score, number, values))
        rows.sort(key=lambda row: (-row[0], row[1]))
        for place, (score, number, values) in enumerate(rows[: options.top], start=1):
            shown = {key: round(value, 5) for key, value in values.items()}
            picture = overlays.of(images.names[number], number, column)
            found_here = {"text": text, "rank": place, "image": images.names[number]}
            yield {**found_here, "score": round(score, 5), **shown, **picture}


def answer(session: Session, images: Images, options: Namespace, done: Advance) -> Iterator[Row]:
    """A row per image and question with its ``answer``."""
    answers = _read_answers(options.answers)
    how = {"inference_method": "rank" if answers else "generate", "answer_list": answers}
    for batch in images.batches(session.image, options.batch_size):
        samples: dict[str, Any] = {"image": batch.pixels.to(session.device)}
        if session.can("encode_image"):  # once for all questions
            samples["image_tokens"] = session.model.encode_image(samples["image"])
        columns = []
        for question in options.texts:
            samples["text_input"] = [session.text(question)] * len(batch.names)
            columns.append(session.model.predict_answers(samples, **how))
        for row, name in enumerate(batch.names):
            for question, found in zip(options.texts, columns, strict=True):
                yield {"image": name, "question": question, "answer": found[row]}
        done(len(batch.names))


def _read_answers(path: str | None) -> list[str] | None:
    if path is None:
        return None
    try:
        lines = Path(local_path(path)).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--answers: {path} cannot be read: {error}") from None
    answers = [line.strip() for line in lines if line.strip()]
    if not answers:
        raise DataError(f"--answers: {path}: no answers in it; it has one per line")
    return answers


# ---- scores of images and texts


def _text_embeds(session: Session, texts: list[str]) -> Tensor | None:
    """(Q, E), None for a model without a joint space."""
    if not session.can("image_embeds", "encode_text", "text_embeds"):
        return None
    return session.model.text_embeds(session.model.encode_text(texts))


def _scores(
    session: Session, batch: ImageBatch, texts: list[str], embeds: Tensor | None
) -> dict[str, Tensor]:
    """(B, Q) each, as the model can: ``match`` in [0, 1] with its ``logit``; ``cosine``."""
    model, scores = session.model, {}
    tokens = model.encode_image(batch.pixels.to(session.device))
    if session.can("match"):
        logits = [model.match(tokens, [text] * len(tokens)).float() for text in texts]
        stacked = torch.stack(logits, dim=1)  # (B, Q, 2)
        scores["match"] = stacked.softmax(-1)[..., 1].cpu()
        scores["logit"] = stacked[..., 1].cpu()
    if embeds is not None:
        scores["cosine"] = cosines(model.image_embeds(tokens), embeds).cpu()
    return scores


def _nearest(
    session: Session, images: Images, embeds: Tensor, options: Namespace, done: Advance
) -> list[list[int]]:
    """For each text the numbers of the images whose embeddings are nearest to its own."""
    numbers: list[int] = []
    found = []
    for batch in images.batches(session.image, options.batch_size):
        tokens = session.model.encode_image(batch.pixels.to(session.device))
        found.append(cosines(session.model.image_embeds(tokens), embeds).cpu())
        numbers += batch.numbers
        done(len(batch.names))
    if not found:
        return [[] for _ in embeds]
    count = min(max(options.rerank, options.top), len(numbers))
    order = torch.cat(found).T.topk(count).indices  # (Q, count)
    return [[numbers[index] for index in row] for row in order.tolist()]


class _Overlays:
    """Pictures of where texts were found, where they are asked for.

    Raises:
        ConfigError: the model cannot tell where, or the folder cannot be made.
    """

    def __init__(self, session: Session, options: Namespace) -> None:
        self.session, self.texts = session, options.texts
        self.folder = Path(options.overlay) if options.overlay else None
        if self.folder is None:
            return
        if not session.can("localize"):
            raise ConfigError(
                f"--overlay: {type(session.model).__name__} cannot tell where in an image a text "
                "is found (it lacks `localize`)"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--overlay: {self.folder}: {error.strerror or error}") from None

    def __call__(self, batch: ImageBatch, row: int, column: int) -> Row:
        """The overlay of an image of a batch and a text, as the row's ``overlay``."""
        return self.of(batch.names[row], batch.numbers[row], column)

    def of(self, name: str, number: int, column: int) -> Row:
        """The overlay of an image by name and a text by number, as the row's ``overlay``."""
        if self.folder is None:
            return {}
        picture, session = open_image(name), self.session
        pixels = session.image(picture)[None].to(session.device)
        relevance = session.model.localize(pixels, [session.text(self.texts[column])])
        path = self.folder / f"{number + 1:04d}-{Path(name).stem}-{column + 1}.png"
        overlay(picture, relevance[0].cpu()).save(path)
        return {"overlay": str(path)}
