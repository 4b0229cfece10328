"""A batch of pixels to what a model says of it: captions, answers, scores of texts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.metrics.finite import ask_each
from lavis_lite.models.pipelines.session import Session
from lavis_lite.modules.interfaces import Embeds, EncodesImage, LearnsAnswers, Matches
from lavis_lite.modules.layers.similarity import cosines

_ANSWERS_AT_ONCE = 1024  # pairs of question and answer whose probabilities are computed together


def check_generation(session: Session, given: Mapping[str, object]) -> None:
    """Refuse options that ``generate`` of the model does not take.

    Raises:
        ConfigError: with the nearest name.
    """
    taken = inspect.signature(session.model.generate).parameters
    if refused := [name for name in given if name not in taken]:
        near = suggest(refused[0], taken)
        what = f"{type(session.model).__name__}.generate takes no {refused[0]}"
        raise ConfigError(f"{what}.{near}" if near else what)


def captions(
    session: Session, names: Sequence[str], pixels: Tensor, given: Mapping[str, object], seed: int
) -> list[list[str] | None]:
    """Return the captions of each image; None of those for which the model gives no numbers.

    Args:
        session: with a model that generates.
        names: of the images; with the seed, they decide what is drawn.
        pixels: (B, 3, H, W).
        given: options of ``generate``, see ``check_generation``.
        seed: of captions that are drawn.
    """
    generate, count = session.model.generate, given.get("num_captions", 1)
    assert isinstance(count, int)
    seeds = [stable_hash("caption", seed, name) for name in names]
    takes_seeds = "seeds" in inspect.signature(generate).parameters
    pixels = pixels.to(session.device)

    def ask(rows: list[int]) -> list[list[str]]:
        drawn = {"seeds": [seeds[row] for row in rows]} if takes_seeds else {}
        texts = generate({"image": pixels[rows]}, **given, **drawn)
        return [texts[place : place + count] for place in range(0, len(texts), count)]

    return ask_each(ask, len(names))


def image_samples(session: Session, pixels: Tensor) -> dict[str, Tensor]:
    """Return samples of a batch with ``image``, and its tokens where the model encodes images."""
    samples = {"image": pixels.to(session.device)}
    if session.can(EncodesImage):  # once for all questions
        samples["image_tokens"] = session.model.encode_image(samples["image"])
    return samples


def answers(
    session: Session,
    samples: Mapping[str, Tensor],
    questions: Sequence[str],
    how: Mapping[str, object],
) -> list[str | None]:
    """Return an answer to each question; None where the model gives no numbers.

    Args:
        session: with a model that answers.
        samples: of B images, from ``image_samples``.
        questions: B, as the text processor makes them.
        how: options of ``predict_answers``.
    """

    def ask(rows: list[int]) -> list[str]:
        some = {name: value[rows] for name, value in samples.items()}
        asked = {**some, "text_input": [questions[row] for row in rows]}
        return session.model.predict_answers(asked, **how)

    return ask_each(ask, len(questions))


def answer_probabilities(
    session: Session,
    samples: Mapping[str, Tensor],
    questions: Sequence[str],
    candidates: Sequence[Sequence[str]],
) -> Tensor:
    """Return the probability that the model writes each answer to its question, (B, K), fp32.

    It is the product over the answer's tokens, its end included.

    Args:
        session: with a model that learns answers.
        samples: of B images, from ``image_samples``.
        questions: B.
        candidates: K answers of each question.
    """
    model, count = session.model, len(candidates[0])
    states, mask = model.read_questions(samples["image_tokens"], model.tokenize(list(questions)))
    context = model.question_context(states)
    parts = []
    step = max(1, _ANSWERS_AT_ONCE // len(questions))
    for first in range(0, count, step):
        some = [row[first : first + step] for row in candidates]
        batch = model.tokenize_answers([answer for row in some for answer in row])
        logits = model.word_logits(model.answer_states(context, mask, batch).flatten(0, 1))
        wanted, real = batch.ids[:, 1:], batch.mask[:, 1:].bool()
        found = logits.log_softmax(-1).gather(1, wanted.reshape(-1, 1)).view_as(wanted)
        parts.append(found.masked_fill(~real, 0.0).sum(1).view(len(questions), -1))
    return torch.cat(parts, dim=1).exp().cpu()


def weighs_answers(session: Session) -> bool:
    """Tell whether the model gives probabilities of answers."""
    return session.can(LearnsAnswers)


def text_features(session: Session, texts: list[str]) -> Tensor | None:
    """(Q, E), None for a model without a joint space."""
    if not session.can(Embeds):
        return None
    return session.model.text_features(session.model.encode_text(texts))


def scores(
    session: Session, pixels: Tensor, texts: list[str], embeds: Tensor | None
) -> dict[str, Tensor]:
    """Return scores (B, Q) of images and texts, as the model can.

    Args:
        session: with a model that matches or embeds.
        pixels: (B, 3, H, W).
        texts: Q.
        embeds: their features, from ``text_features``.

    Returns:
        ``match`` in [0, 1] with its ``logit``; ``cosine``.
    """
    model, found = session.model, {}
    tokens = model.encode_image(pixels.to(session.device))
    if session.can(Matches):
        logits = [model.match(tokens, [text] * len(tokens)).float() for text in texts]
        stacked = torch.stack(logits, dim=1)  # (B, Q, 2)
        found["match"] = stacked.softmax(-1)[..., 1].cpu()
        found["logit"] = stacked[..., 1].cpu()
    if embeds is not None:
        found["cosine"] = cosines(model.image_features(tokens), embeds).cpu()
    return found
