"""Pipelines that write: descriptions of pictures, and answers to questions about them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lavis_lite.config.calls import checked_options
from lavis_lite.errors import ConfigError
from lavis_lite.models.pipelines import asking
from lavis_lite.models.pipelines.base import Ask, Batch, Pipeline, pictures_of
from lavis_lite.models.texts import as_texts
from lavis_lite.models.vqa import checked_answers
from lavis_lite.modules.samples import kind_of, needed

# Options of transformers' ``generate`` -> ours.
_RENAMED = {"do_sample": "use_nucleus_sampling", "num_return_sequences": "num_captions"}
_WITHOUT_EFFECT = {"use_cache", "early_stopping"}  # on the texts that are found here
_TOP_K = 5


class ImageToText(Pipeline):
    """Describes pictures: ``[{"generated_text": ...}]`` for each."""

    task, needs, gives = "image-to-text", "caption", "the logits of a text"

    @checked_options
    def prepare(
        self,
        max_new_tokens: int | None = None,
        generate_kwargs: Mapping | None = None,
        prompt: str | None = None,
        seed: int = 0,
    ) -> Ask:
        """Check the options and return what describes a batch.

        Args:
            max_new_tokens: most tokens of a text, without the model's prompt.
            generate_kwargs: options of the model's ``generate``, or of transformers' own.
            prompt: it is the model's here; the error says how to load it with another.
            seed: of texts that are drawn (``do_sample``).
        """
        if prompt is not None:
            raise ConfigError(
                "prompt: what captions start with is an argument of the model here: "
                f'pipeline("image-to-text", ..., model_kwargs={{"prompt": {prompt!r}}})'
            )
        given = self._generation(max_new_tokens, dict(generate_kwargs or {}))
        asking.check_generation(self.session, given)

        def ask(batch: Batch) -> list[object]:
            names = [str(number) for number in batch.numbers]
            found = asking.captions(self.session, names, batch.pixels, given, seed)
            return [texts and [{"generated_text": text} for text in texts] for texts in found]

        return ask

    def _generation(
        self, max_new_tokens: int | None, given: dict[str, object]
    ) -> dict[str, object]:
        """Options as the model's ``generate`` calls and counts them."""
        if max_new_tokens is not None:
            if "max_new_tokens" in given:
                raise ConfigError("max_new_tokens: given twice, also in generate_kwargs")
            given["max_new_tokens"] = max_new_tokens
        given = {_RENAMED.get(k, k): v for k, v in given.items() if k not in _WITHOUT_EFFECT}
        prompt = getattr(self.model, "prompt_length", 0)
        for ours in ("max_length", "min_length"):
            new = given.pop(f"{ours.partition('_')[0]}_new_tokens", None)
            if new is not None:
                if isinstance(new, bool) or not isinstance(new, int) or new < 0:
                    raise ConfigError(f"{ours[:3]}_new_tokens: {new!r}; a whole number is expected")
                given[ours] = prompt + new
        most, fewest = given.get("max_length"), "min_length"
        taken = inspect.signature(self.session.model.generate).parameters
        if isinstance(most, int) and fewest not in given and fewest in taken:
            given[fewest] = min(taken[fewest].default, most)
        return given


class VisualQuestionAnswering(Pipeline):
    """Answers questions about pictures: ``[{"answer": ..., "score": ...}]`` for each.

    ``score`` is the probability with which the model writes the answer, where it tells.
    """

    task, needs, gives = "visual-question-answering", "answer", "the answer to the question"

    def __call__(  # type: ignore[override]
        self, image: object = None, question: object = None, **options: object
    ) -> object:
        """Do the task; the options and results are those of ``Pipeline``.

        Args:
            image: a picture, or several, see ``Pipeline``; or mappings with ``image`` and
                ``question``.
            question: one for all pictures; or several, of one picture, or one for each of as many.
            options: ``top_k`` answers of ``answer_list``, which the model chooses from; without
                one it writes an answer. ``max_new_tokens``, ``num_beams`` of answers it writes.
        """
        inputs = options.pop("inputs", None) if image is None else image
        if question is not None:
            inputs = _pairs(inputs, question, self.task)
        return super().__call__(inputs, **options)  # type: ignore[arg-type]

    def picture_of(self, item: object, name: str) -> object:
        """The picture beside a question."""
        _question(item, name)
        return needed(item, "image")

    @checked_options
    def prepare(
        self,
        top_k: int | None = None,
        answer_list: Sequence[str] | None = None,
        max_new_tokens: int | None = None,
        num_beams: int = 3,
        padding: object = None,
        truncation: object = None,
    ) -> Ask:
        """Check the options and return what answers a batch.

        Args:
            top_k: how many answers of ``answer_list``, the likeliest first (default: 5).
            answer_list: answers to choose from; None: the model writes one.
            max_new_tokens: most tokens of an answer that it writes.
            num_beams: of an answer that it writes.
            padding, truncation: taken as code for transformers gives them; questions always are.
        """
        if top_k is not None and top_k < 1:
            raise ConfigError(f"top_k: {top_k}; at least 1 is expected")
        session = self.session
        if answer_list is not None:
            listed = checked_answers(answer_list, 1)
            if not asking.weighs_answers(session):
                raise ConfigError(f"answer_list: {type(self.model).__name__} weighs no answers")
        how: dict[str, object] = {"inference_method": "generate", "num_beams": num_beams}
        if max_new_tokens is not None:
            how["max_len"] = max_new_tokens + 1  # the start token

        def ask(batch: Batch) -> list[object]:
            questions = [session.text(_question(item, "")) for item in batch.inputs]
            samples = asking.image_samples(session, batch.pixels)
            if answer_list is not None:
                rows = [listed] * len(questions)
                chances = asking.answer_probabilities(session, samples, questions, rows)
                best = chances.topk(min(top_k or _TOP_K, len(listed)))
                return [
                    [{"score": s, "answer": listed[n]} for s, n in zip(*row, strict=True)]
                    for row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
                ]
            found = asking.answers(session, samples, questions, how)
            if not asking.weighs_answers(session):
                return [answer and [{"answer": answer}] for answer in found]
            written = [[answer or ""] for answer in found]
            chances = asking.answer_probabilities(session, samples, questions, written)
            return [
                None if answer is None else [{"score": score, "answer": answer}]
                for answer, score in zip(found, chances[:, 0].tolist(), strict=True)
            ]

        return ask


def _question(item: object, name: str) -> str:
    if not isinstance(item, Mapping):
        raise ConfigError(
            f"{name}: {kind_of(item)} without a question; give question=..., or "
            '{"image": ..., "question": ...}'
        )
    (question,) = as_texts(needed(item, "question"), f"question of {name}")
    return question


def _pairs(images: object, question: object, task: str) -> object:
    """Pictures with questions as mappings: one of either goes with each of the other."""
    pictures, is_one = pictures_of(images, task)
    if isinstance(question, str):
        if is_one:
            (picture,) = pictures
            return {"image": picture, "question": question}
        pairs = ({"image": picture, "question": question} for picture in pictures)
        return list(pairs) if isinstance(pictures, list) else pairs
    questions = as_texts(question, "question")
    if is_one:
        (picture,) = pictures
        return [{"image": picture, "question": one} for one in questions]
    if isinstance(pictures, list) and len(pictures) != len(questions):
        raise ConfigError(
            f"question: {len(questions)} questions for {len(pictures)} images; one for each is "
            "expected, or one for all"
        )
    return _zipped(pictures, questions)


def _zipped(pictures: Iterable[object], questions: list[str]) -> object:
    pairs: Iterator[object] = (
        {"image": picture, "question": one}
        for picture, one in zip(pictures, questions, strict=True)
    )
    return list(pairs) if isinstance(pictures, list) else pairs
