"""The four commands as functions from a session and images to rows of results."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from lavis_lite.cli.images import ImageBatch, Images
from lavis_lite.cli.output import Row
from lavis_lite.errors import ConfigError, DataError, NotFinite
from lavis_lite.io.paths import local_path
from lavis_lite.metrics.counts import not_finite
from lavis_lite.models.heatmap import overlay
from lavis_lite.models.pipelines import asking
from lavis_lite.models.pipelines.session import Session
from lavis_lite.modules.interfaces import Localizes
from lavis_lite.modules.layers.similarity import cosines

_NAME_BYTES = 255
_BEAMS = 3  # of a search whose number is not given, as of ``generate``
Advance = Callable[[int], object]  # told how many more images are done


def caption(
    session: Session,
    images: Images,
    options: Namespace,
    done: Advance,
    numbers: Iterable[int] | None = None,
) -> Iterator[Row]:
    """A row per image: ``caption``, or ``captions`` where several are asked for.

    Args:
        session: with a model that generates.
        images: that are meant.
        options: of the command line.
        done: told how many more images are done.
        numbers: which images, taken as they are needed; by default all.
    """
    taken = inspect.signature(session.model.generate).parameters
    if "use_nucleus_sampling" in taken:  # others draw by default
        _refuse_without_effect(options)
    given = {
        "num_captions": options.num_captions,
        "num_beams": options.num_beams,
        "use_nucleus_sampling": options.sample or None,
        "top_p": options.top_p,
        "max_length": options.max_length,
        "min_length": options.min_length,
    }
    given = {name: value for name, value in given.items() if value is not None}
    asking.check_generation(session, given)
    several = given.get("num_captions", 1) > 1
    before, after = options.prefix or "", options.suffix or ""
    for batch in images.batches(session.image, options.batch_size, numbers):
        found = asking.captions(session, batch.names, batch.pixels, given, options.seed or 0)
        for name, mine in zip(batch.names, found, strict=True):
            if mine is None:
                images.failed(name, not_finite("the logits of a text"))
                continue
            mine = [f"{before}{text}{after}" for text in mine]
            yield {"image": name, **({"captions": mine} if several else {"caption": mine[0]})}
        done(len(batch.names))


def _refuse_without_effect(options: Namespace) -> None:
    """Refuse options that change nothing together with the others.

    Raises:
        ConfigError: all of them, with what would give them an effect.
    """
    problems = []
    if options.sample and options.num_beams is not None:
        problems.append("--num-beams: --sample draws captions and searches no beams; leave one out")
    if not options.sample:
        for name, value in (("--top-p", options.top_p), ("--seed", options.seed)):
            if value is not None:
                problems.append(f"{name}: it is of drawn captions; give --sample too")
        beams = options.num_beams or _BEAMS
        if (options.num_captions or 1) > beams:
            problems.append(
                f"--num-captions: {options.num_captions} from {beams} beams; give --num-beams "
                f"{options.num_captions} (or more), or --sample"
            )
    if problems:
        raise ConfigError("\n".join(problems))


def match(session: Session, images: Images, options: Namespace, done: Advance) -> Iterator[Row]:
    """A row per image and text: ``match``, a probability, and ``cosine`` of their embeddings."""
    overlays = _Overlays(session, options, images)
    texts = [session.text(text) for text in options.texts]
    embeds = asking.text_features(session, texts)
    for batch in images.batches(session.image, options.batch_size):
        scores = asking.scores(session, batch.pixels, texts, embeds)
        for row, name in enumerate(batch.names):
            for column, text in enumerate(options.texts):
                found = {k: round(v[row, column].item(), 5) for k, v in scores.items()}
                found.pop("logit", None)
                if not all(map(math.isfinite, found.values())):
                    images.failed(name, not_finite(f"the score of {text!r}"))
                    continue
                yield {"image": name, "text": text, **found, **overlays(batch, row, column)}
        done(len(batch.names))


def search(session: Session, images: Images, options: Namespace, done: Advance) -> Iterator[Row]:
    """Return for each text a row per found image, the best first.

    The nearest by cosine are ordered by ``score``, the matching logit plus the cosine, as BLIP
    ranks; by what there is of the two where a model lacks one.
    """
    overlays = _Overlays(session, options, images)
    texts = [session.text(text) for text in options.texts]
    embeds = asking.text_features(session, texts)
    chosen, found = list(range(len(images.names))), {}
    if embeds is not None:
        near = _nearest(session, images, embeds, options, done)
        chosen = sorted({number for numbers in near for number in numbers})
    else:
        near = [chosen] * len(texts)
    for batch in images.batches(session.image, options.batch_size, chosen) if chosen else ():
        scores = asking.scores(session, batch.pixels, texts, embeds)
        for row, number in enumerate(batch.numbers):
            found[number] = {key: values[row].tolist() for key, values in scores.items()}
        done(0 if embeds is not None else len(batch.names))
    for column, text in enumerate(options.texts):
        rows = []
        for number in (number for number in near[column] if number in found):
            values = {key: scores[column] for key, scores in found[number].items()}
            score = sum(values[key] for key in ("logit", "cosine") if key in values)
            values.pop("logit", None)
            if not math.isfinite(score):
                images.failed(images.names[number], not_finite(f"the score of {text!r}"))
                continue
            rows.append((score, number, values))
        rows.sort(key=lambda row: (-row[0], row[1]))
        for place, (score, number, values) in enumerate(rows[: options.top], start=1):
            shown = {key: round(value, 5) for key, value in values.items()}
            picture = overlays.of(images.names[number], number, column)
            found_here = {"text": text, "rank": place, "image": images.names[number]}
            yield {**found_here, "score": round(score, 5), **shown, **picture}


def answer(session: Session, images: Images, options: Namespace, done: Advance) -> Iterator[Row]:
    """A row per image and question with its ``answer``."""
    answers = options.answer_list
    how = {"inference_method": "rank" if answers else "generate", "answer_list": answers}
    for batch in images.batches(session.image, options.batch_size):
        samples = asking.image_samples(session, batch.pixels)
        columns = [
            asking.answers(session, samples, [session.text(question)] * len(batch.names), how)
            for question in options.texts
        ]
        for row, name in enumerate(batch.names):
            for question, found in zip(options.texts, columns, strict=True):
                if found[row] is None:
                    images.failed(name, not_finite(f"the answer to {question!r}"))
                else:
                    yield {"image": name, "question": question, "answer": found[row]}
        done(len(batch.names))


def read_answers(path: str | None) -> list[str] | None:
    """The answers in a file, one per line; None without one.

    Raises:
        DataError: it cannot be read, or nothing is in it.
    """
    if path is None:
        return None
    try:
        lines = Path(local_path(path)).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--answers: {path} cannot be read: {error}") from None
    answers = [line.strip() for line in lines if line.strip()]
    if not answers:
        raise DataError(f"--answers: {path}: no answers in it; it has one per line")
    return answers


# ---- scores of images and texts


def _nearest(
    session: Session, images: Images, embeds: Tensor, options: Namespace, done: Advance
) -> list[list[int]]:
    """Return for each text the numbers of the images whose embeddings are nearest to its own."""
    numbers: list[int] = []
    found = []
    for batch in images.batches(session.image, options.batch_size):
        tokens = session.model.encode_image(batch.pixels.to(session.device))
        similar = cosines(session.model.image_features(tokens), embeds).cpu()
        good = similar.isfinite().all(1)
        for name, is_good in zip(batch.names, good.tolist(), strict=True):
            if not is_good:
                images.failed(name, not_finite("an embedding"))
        found.append(similar[good])
        numbers += [n for n, is_good in zip(batch.numbers, good.tolist(), strict=True) if is_good]
        done(len(batch.names))
    if not numbers:
        return [[] for _ in embeds]
    count = min(max(options.rerank, options.top), len(numbers))
    order = torch.cat(found).T.topk(count).indices  # (Q, count)
    return [[numbers[index] for index in row] for row in order.tolist()]


class _Overlays:
    """Pictures of where texts were found, where they are asked for.

    Raises:
        ConfigError: the model cannot tell where, or the folder cannot be made.
    """

    def __init__(self, session: Session, options: Namespace, images: Images) -> None:
        self.session, self.texts, self.images = session, options.texts, images
        self.folder = Path(options.overlay) if options.overlay else None
        if self.folder is None:
            return
        if not session.can(Localizes):
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
        """The overlay of an image by name and a text by number, as the row's ``overlay``.

        None of one that cannot be made or written; the image is noted among those that failed.
        """
        if self.folder is None:
            return {}
        end = f"-{column + 1}.png"
        path = self.folder / _fitting(f"{number + 1:04d}-{Path(name).stem}", end)
        session = self.session
        try:
            picture = self.images.open(name)
            pixels = session.image(picture)[None].to(session.device)
            relevance = session.model.localize(pixels, [session.text(self.texts[column])])
            if not bool(relevance.isfinite().all()):
                raise NotFinite("the relevance of patches")
            overlay(picture, relevance[0].cpu()).save(path)
        except (OSError, DataError, NotFinite) as error:
            with contextlib.suppress(OSError):
                path.unlink()
            why = getattr(error, "strerror", None) or str(error)
            self.images.failed(name, f"no overlay {path.name}: {why}")
            return {"overlay": None}
        return {"overlay": str(path)}


def _fitting(name: str, end: str) -> str:
    """A file name of at most 255 bytes, which is what file systems hold; ``name`` may be cut."""
    room = _NAME_BYTES - len(os.fsencode(end))
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return name + end
