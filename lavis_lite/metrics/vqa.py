"""Answers to the questions of a test set, scored against people's."""

from __future__ import annotations

import inspect
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from lavis_lite import registry
from lavis_lite.errors import ConfigError, DataError, suggest
from lavis_lite.metrics.columns import Chief, Column
from lavis_lite.metrics.counts import row_count
from lavis_lite.metrics.rows import Row, predict_rows
from lavis_lite.metrics.vqa_words import aok_vqa_accuracy, vqa_accuracy
from lavis_lite.modules.interfaces import Answers, Context, Evaluation, EvaluationData
from lavis_lite.modules.output import Samples

log = logging.getLogger(__name__)
_RULES: dict[str, Callable[[str, Sequence[str]], float]] = {
    "vqa": vqa_accuracy,
    "aok_vqa": aok_vqa_accuracy,
}
_OURS = ("samples", "answer_list")


@registry.register("metric", "vqa")
class Vqa:
    """VQA's accuracy of a model's answers, in %: over all questions and by type of answer.

    Scored are the rows with `references`, people's answers; where none has any (a test set), the
    answers are only written, as everywhere also in the format of the evaluation server.

    Args:
        predict: arguments of the model's `predict_answers`; empty are the model's defaults.
            `inference_method` is by default `rank` where there is a list of answers.
        answer_list: what `rank` chooses from: a JSON file, or the answers; by default the
            dataset's own.
        rule: `vqa`, with the official normalisation, or `aok_vqa`, exact words.
    """

    requires = (Answers,)
    title = "Answers to questions, accuracy in %"
    counted = "questions"
    columns = (
        Column("accuracy", "all", unit="%"),
        Column("accuracy_yes_no", "yes or no", unit="%"),
        Column("accuracy_number", "numbers", unit="%"),
        Column("accuracy_other", "others", unit="%"),
    )
    chief = Chief("accuracy", "questions answered right", "%")

    def __init__(
        self,
        predict: dict[str, Any] | None = None,
        answer_list: str | list[str] | None = None,
        rule: Literal["vqa", "aok_vqa"] = "vqa",
    ) -> None:
        if rule not in _RULES:
            raise ConfigError(f"vqa.rule: {rule!r}.{suggest(rule, _RULES)} Known: vqa, aok_vqa")
        self.predict = predict or {}
        self.answer_list = (
            read_answers(answer_list) if isinstance(answer_list, str) else answer_list
        )
        self.rule = rule

    def check(self, model: Answers) -> None:
        """Refuse options that the model's ``predict_answers`` does not take (ConfigError)."""
        parameters = inspect.signature(model.predict_answers).parameters
        known = [name for name in parameters if name not in _OURS]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in () if takes_any else self.predict:
            if name not in known:
                raise ConfigError(
                    f"vqa.predict.{name}: {type(model).__name__}.predict_answers takes no "
                    f"{name!r}.{suggest(name, known)} It takes: {', '.join(known)}"
                )

    def evaluate(self, model: Answers, data: EvaluationData, runner: Context) -> Evaluation:
        """Figures in %, and per question its answer and how right it is."""
        self.check(model)
        answers = self.answer_list or getattr(data.dataset, "answer_list", None)
        options = {"inference_method": "rank" if answers else "generate", **self.predict}
        if options["inference_method"] == "rank" and not answers:
            raise ConfigError(
                "vqa: `rank` chooses from a list of answers, and the dataset has none; name one "
                "with vqa.answer_list, or set vqa.predict.inference_method: generate"
            )

        def predict(samples: Samples, rows: list[Row]) -> list[Row]:
            said = model.predict_answers(samples, answer_list=answers, **options)
            return [self._judged(row, answer) for row, answer in zip(rows, said, strict=True)]

        rows = predict_rows(model, data, runner, predict)
        judged = [row["index"] for row in rows if "accuracy" in row]
        left_out = [row["index"] for row in rows if "accuracy" not in row]
        counts = {"questions": row_count(data, judged, {"no people's answer": left_out})}
        return Evaluation(_figures(rows), rows, self._submission(rows), counts=counts)

    def _judged(self, row: Row, answer: str) -> Row:
        kept = ("question_id", "image_id", "question_type", "answer_type")
        found = {
            **{name: row[name] for name in kept if name in row},
            "question": row["text_input"],
            "answer": answer,
        }
        if references := row.get("references"):
            accuracy = _RULES[self.rule](answer, references)
            found |= {"references": references, "accuracy": round(accuracy, 4)}
        return found

    def _submission(self, rows: list[Row]) -> Any:
        if not all("question_id" in row for row in rows):
            return None
        if self.rule == "aok_vqa":
            return {str(row["question_id"]): {"direct_answer": row["answer"]} for row in rows}
        return [{"question_id": row["question_id"], "answer": row["answer"]} for row in rows]


def _figures(rows: list[Row]) -> dict[str, float]:
    """``accuracy``, and ``accuracy_number`` and the like where the rows have types of answers."""
    judged = [row for row in rows if "accuracy" in row]
    if not judged:
        log.warning("vqa: no question has people's answers; answers are written, not scored")
        return {}
    by_type: dict[str, list[float]] = defaultdict(list)
    for row in judged:
        by_type[""].append(row["accuracy"])
        if "answer_type" in row:
            by_type["_" + str(row["answer_type"]).replace("/", "_")].append(row["accuracy"])
    return {
        f"accuracy{kind}": 100 * sum(found) / len(found) for kind, found in sorted(by_type.items())
    }


def read_answers(path: str) -> list[str]:
    """A list of answers from a JSON file: a list, or an object whose keys they are.

    Raises:
        DataError: no such file, or something else in it.
    """
    try:
        found = json.loads(Path(path).read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"vqa.answer_list: {path}: {error}") from None
    answers = list(found) if isinstance(found, list | dict) else []
    if not answers or not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise DataError(f"vqa.answer_list: {path}: a JSON list of answers is expected")
    return answers
