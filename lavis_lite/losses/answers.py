"""Answering: language modelling of the answers to a question, each with its weight."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.errors import DataError, suggest
from lavis_lite.losses.shared import Shared, global_mean, keeps_momentum, rows_of
from lavis_lite.modules.interfaces import ImageContext, LearnsAnswers
from lavis_lite.modules.output import Samples
from lavis_lite.modules.samples import kind_of, needed, whole_numbers
from lavis_lite.modules.text.text_batch import TextBatch

TOKENS_AT_ONCE = 2048  # tokens whose logits over the vocabulary are computed at a time


class Answers(NamedTuple):
    """The answers to all questions of a batch, A in number.

    Args:
        texts: A answers.
        weights: (A,) fp32.
        owners: (A,) the row of each answer's question.
    """

    texts: list[str]
    weights: Tensor
    owners: Tensor


class Teacher(NamedTuple):
    """A momentum copy that has read the same questions, whose answers are targets too.

    model: gives states and logits of answers.
    context, mask: of the questions as it reads them, a row for each answer.
    share: the weight of its opinion in the targets, in [0, 1].
    """

    model: LearnsAnswers
    context: ImageContext
    mask: Tensor
    share: float


def _several(answers: object) -> Sequence[object]:
    """One answer as a list of it: the answer to the only question."""
    if isinstance(answers, str):
        return [answers]
    if isinstance(answers, list | tuple):
        return answers
    raise DataError(f"answers: {kind_of(answers)}; of each question a list of texts is expected")


def _listed(answers: Any) -> list[str]:
    if not isinstance(answers, list | tuple) or not all(isinstance(a, str) for a in answers):
        raise DataError(f"answers: {answers!r:.80}; of each question a list of texts is expected")
    return list(answers)


def answers_of(samples: Samples) -> Answers:
    """Collect the answers of a batch of B questions, with weight 1 where none is given.

    Args:
        samples: ``answers`` and ``weights``, of each question a list; or ``answer`` and
            ``weight``, flat, with the number of each question's in ``n_answers`` (B,).

    Raises:
        DataError: no answers, or numbers of answers, weights and questions that do not agree.
    """
    num_questions = len(needed(samples, "text_input"))
    if "answers" in samples:
        lists = [[a] if isinstance(a, str) else _listed(a) for a in _several(samples["answers"])]
        counts = [len(own) for own in lists]
        texts = list(itertools.chain.from_iterable(lists))
        weights = samples.get("weights")
    elif "answer" in samples:
        texts = _listed(_several(samples["answer"]))
        given = samples.get("n_answers", [1] * num_questions)
        counts = whole_numbers(given, num_questions, "n_answers").tolist()
        weights = samples.get("weight")
    else:
        near = suggest("answers", samples)
        raise DataError(f"the samples have no `answers` (of each question a list) to learn.{near}")
    weights = [1.0] * len(texts) if weights is None else _flat(weights)
    if len(counts) != num_questions or not sum(counts) == len(texts) == len(weights):
        raise DataError(
            f"answers: {len(texts)} of them with {len(weights)} weights for {num_questions} "
            f"questions that have {counts}"
        )
    rows = torch.repeat_interleave(torch.arange(num_questions), torch.tensor(counts))
    return Answers(texts, torch.tensor(weights, dtype=torch.float32), rows)


def weigh_answers(losses: Tensor, weights: Tensor, num_questions: int) -> Tensor:
    """Average the losses of answers over questions: ``sum_a w_a l_a / B``.

    Args:
        losses: (A,) cross-entropy of each answer, summed over its tokens.
        weights: (A,) how many people gave each answer, as a fraction of those asked.
        num_questions: of the batch of all processes, B; each process counts its own.

    Returns:
        () loss.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 5.3.
    """
    return global_mean((weights.to(losses.device) * losses).sum(), num_questions)


def _flat(weights: Any) -> list[float]:
    """Return weights as one list, from a tensor, a list, or a list of either."""
    if isinstance(weights, Tensor):
        return weights.flatten().tolist()
    if isinstance(weights, int | float):
        return [float(weights)]
    return [number for part in weights for number in _flat(part)]


def answer_losses(
    model: LearnsAnswers,
    context: ImageContext,
    mask: Tensor,
    answers: TextBatch,
    label_smoothing: float,
    teacher: Teacher | None = None,
) -> Tensor:
    """Return the cross-entropy of answers given their questions.

    Args:
        model: gives states and logits of answers.
        context: of B questions, from ``model.question_context``.
        mask: (B, T) of the questions.
        answers: (K * B, A) K answers per question, question-major; nothing is repeated.
        label_smoothing: weight of the uniform distribution in the targets, in [0, 1).
        teacher: whose opinion is mixed into the targets.

    Returns:
        (K * B,) cross-entropy, summed over each answer's tokens.
    """
    real = answers.mask[:, 1:].bool()  # what is to be predicted
    states = model.answer_states(context, mask, answers)[real]  # (M, D)
    targets = answers.ids[:, 1:][real]
    if teacher is not None:
        with torch.no_grad():
            theirs = teacher.model.answer_states(teacher.context, teacher.mask, answers)[real]
    losses = []
    for part in torch.arange(len(targets), device=targets.device).split(TOKENS_AT_ONCE):
        logits = model.word_logits(states[part])  # (M, V)
        loss = F.cross_entropy(
            logits, targets[part], label_smoothing=label_smoothing, reduction="none"
        )
        if teacher is not None:
            with torch.no_grad():
                soft = teacher.model.word_logits(theirs[part]).softmax(-1)
            distilled = F.cross_entropy(logits, soft, reduction="none")
            loss = (1 - teacher.share) * loss + teacher.share * distilled
        losses.append(loss)
    rows = real.nonzero()[:, 0]
    total = torch.zeros(len(real), device=states.device)
    return total.index_add(0, rows, torch.cat(losses)) if losses else total


@registry.register("loss", "answer_lm")
class AnswerModelling(nn.Module):
    """Cross-entropy of each answer's tokens given the question and the image.

    Summed over an answer's tokens, times the answer's weight, summed over a question's answers.

    Args:
        label_smoothing: weight of the uniform distribution in the targets, in [0, 1).
        alpha: weight of the momentum copy's predictions in the targets, in [0, 1]; without effect
            in a model that keeps none (``use_distill: false``).
        ramp: fraction of the run over which ``alpha`` grows from 0.
        model: may have a momentum copy; nothing else of it is asked here.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 5.3; ALBEF,
    https://arxiv.org/abs/2107.07651, section 3.4.
    """

    requires = (LearnsAnswers,)

    def __init__(
        self,
        label_smoothing: float = 0.1,
        alpha: float = 0.4,
        ramp: float = 0.1,
        *,
        model: object = None,
    ) -> None:
        super().__init__()
        self.label_smoothing, self.ramp = label_smoothing, ramp
        self.alpha = alpha if keeps_momentum(model) else 0.0

    def forward(self, shared: Shared[LearnsAnswers]) -> Tensor:
        """() mean over the questions of all processes."""
        model, samples = shared.model, shared.samples
        answers = answers_of(samples)
        states, mask = model.read_questions(shared.image_tokens, shared.text)
        shared.hand_out(encoder_output=states)
        owners = answers.owners.to(states.device)
        context = rows_of(model.question_context(states), owners)
        texts = model.tokenize_answers(answers.texts)
        teacher = self._teacher(shared.momentum, owners) if self.alpha else None
        losses = answer_losses(model, context, mask[owners], texts, self.label_smoothing, teacher)
        return weigh_answers(losses, answers.weights, len(states))

    @torch.no_grad()
    def _teacher(self, view: Shared[LearnsAnswers], owners: Tensor) -> Teacher:
        """Return the momentum copy with its own reading of image and question."""
        states, mask = view.model.read_questions(view.image_tokens, view.text)
        context = rows_of(view.model.question_context(states), owners)
        share = view.step_info.ramped(self.alpha, self.ramp)
        return Teacher(view.model, context, mask[owners], share)
