"""Published questions about images, with people's answers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Unpack

from lavis_lite import registry
from lavis_lite.data.files.bad_rows import BadRow, each
from lavis_lite.data.files.cells import row_id
from lavis_lite.data.files.encodings import ADVICE, has_bytes
from lavis_lite.data.files.rows import FileOptions
from lavis_lite.data.published import cards
from lavis_lite.data.published.answers import weigh
from lavis_lite.data.published.base import Published, Row, demand
from lavis_lite.errors import DataError

_TYPES = ("question_type", "answer_type")
_TRAVEL = ("question_id", *_TYPES, "choices", "correct_choice_idx", "difficult_direct_answer")


class Questions(Published):
    """A row has `text_input` (the question), `question_id`, people's answers (`references`), and
    for training the different `answers` with their `weights`; of a test set without answers.
    `answer_list` has the answers to rank, where a file of them is there.

    Files are told apart by what is in them, in any order: questions (BLIP's and LAVIS's lists, or
    VQA's own), VQA's annotations, a list of answers.
    """

    columns = ("image", "question", None, None)
    answer_list: list[str] | None = None

    def rows_of(self, files: list[str]) -> Iterator[Row | BadRow]:
        """Questions with their answers, from files of all kinds together."""
        asked: list[Any] = []
        official: list[Row | BadRow] = []
        answered: dict[int | str, Row] = {}
        bad: list[BadRow] = []
        for file, data in self._json(files):
            if isinstance(data, dict) and isinstance(data.get("questions"), list):
                official += _official_questions(data, file)
            elif isinstance(data, dict) and isinstance(data.get("annotations"), list):
                for row in each(data["annotations"], functools.partial(_annotation, file=file)):
                    if isinstance(row, BadRow):
                        bad.append(row)
                    else:
                        answered[row["question_id"]] = row
            elif isinstance(data, list) and any(isinstance(one, dict) for one in data):
                asked += each(data, functools.partial(_asked, file=file))
            elif isinstance(data, dict | list) and all(isinstance(one, str) for one in data):
                self.answer_list = [one for one in data if one.strip()]
            else:
                raise DataError(
                    f"{file}: neither questions nor answers: a JSON {type(data).__name__} that"
                    f" begins with {str(data)[:60]!r}"
                )
        if not asked and not official:
            why = f": {bad[0].reason}" if bad else ""
            raise DataError(f"{', '.join(files)}: no questions in them{why}")
        # Where both are there, the lists say where the images are and VQA's own repeat them.
        rows = asked or official
        if asked and official:
            self.left_out["VQA's own questions, beside lists of them"] = len(official)
        known = {row_id(row["question_id"]) for row in rows if not isinstance(row, BadRow)}
        if lost := len(answered.keys() - known):
            self.left_out["answers to no question"] = lost
        yield from each(
            rows, lambda row: self._question(row, answered.get(row_id(row["question_id"]), {}))
        )
        yield from bad

    def _question(self, row: Row, annotation: Row) -> Row:
        references, weights = _opinions(annotation.get("answers"))
        if not references:
            references, weights = _opinions(row.get("answer", row.get("direct_answers")))
        if any(has_bytes(answer) for answer in references):
            raise DataError(f"question {row['question_id']}: {references!r:.80}: {ADVICE}")
        if self.split == "train" and not references:
            raise DataError(f"question {row['question_id']} has no answer to train on")
        image = row.get("image") or _coco_2017(row, self.split)
        kept = {name: row[name] for name in _TRAVEL if row.get(name) is not None}
        kept |= {name: annotation[name] for name in _TYPES if name in annotation}
        kept |= {"answer_weights": weights} if weights else {}
        return {"image": image, "question": row["question"], "references": references, **kept}

    def _row(self, number: int) -> Row:
        row = super()._row(number)
        given = row.pop("answer_weights", None)
        answers, weights = self.weigh(row["references"]) if row["references"] else ([], [])
        return {**row, "answers": answers, "weights": given or weights}

    def weigh(self, references: list[str]) -> tuple[list[str], list[float]]:
        """The different answers, and how much each counts in training."""
        return weigh(references)


@registry.register("dataset", "coco_vqa")
class CocoVqa(Questions, card="coco_vqa"):
    """VQA v2: questions about COCO's photographs, each answered by ten people."""


@registry.register("dataset", "ok_vqa")
class OkVqa(Questions, card="ok_vqa"):
    """OK-VQA: questions about COCO's photographs that need knowledge from elsewhere."""


@registry.register("dataset", "aok_vqa")
class AokVqa(Questions, card="aok_vqa"):
    """A-OKVQA: questions about COCO's photographs that need knowledge and reasoning."""


@registry.register("dataset", "vg_vqa")
class VgVqa(Questions, card="vg_vqa"):
    """Visual Genome's questions with one answer each, which counts `answer_weight` in training.

    BLIP's weight is 0.2; LAVIS's last version has 1.
    """

    def __init__(
        self,
        split: str | None = None,
        images: str | None = None,
        annotations: str | list[str] | None = None,
        root: str = cards.ROOT,
        answer_weight: float = 0.2,
        **options: Unpack[FileOptions],
    ):
        self.answer_weight = answer_weight
        super().__init__(split, images, annotations, root, **options)

    def weigh(self, references: list[str]) -> tuple[list[str], list[float]]:
        """The answer and its weight."""
        answers, _ = weigh(references)
        return answers, [self.answer_weight] * len(answers)


def _opinions(value: object) -> tuple[list[str], list[float]]:
    """People's answers as texts, and their weights where the file gives some.

    They are one answer, a list of them (VQA's: of objects with `answer`), or answer -> weight, as
    a text or a number; empty ones are none. A test set has none at all.

    Raises:
        DataError: they are something else.
    """
    if isinstance(value, dict):
        if not all(isinstance(one, int | float) and one >= 0 for one in value.values()):
            raise DataError(f"answers {value!r:.80}; an object of answers has their weights")
        weighed = {str(name): float(one) for name, one in value.items() if str(name).strip()}
        return list(weighed), list(weighed.values())
    listed = value if isinstance(value, list) else [value]
    plain = [one["answer"] if isinstance(one, dict) else one for one in listed]
    for one in plain:
        if not (one is None or isinstance(one, str | int | float)):
            raise DataError(f"answers {value!r:.80}; an answer is a text or a number")
    return [str(one) for one in plain if one is not None and str(one).strip()], []


def _asked(row: Row, file: str) -> Row:
    demand(row, ("question", "question_id"), file)
    return row


def _annotation(row: Row, file: str) -> Row:
    demand(row, ("question_id", "answers"), file)
    return {**row, "question_id": row_id(row["question_id"])}


def _official_questions(data: Row, file: str) -> Iterator[Row | BadRow]:
    """VQA's own questions, with the image's path in COCO's folders."""
    subset = data.get("data_subtype", "")

    def located(row: Row) -> Row:
        demand(row, ("question", "question_id", "image_id"), file)
        return {**row, "image": f"{subset}/COCO_{subset}_{int(row['image_id']):012d}.jpg"}

    return each(data["questions"], located)


def _coco_2017(row: Row, split: str) -> str:
    """The image of a question of A-OKVQA as published."""
    number = row_id(row.get("image_id"))
    if not isinstance(number, int):
        raise DataError(f"question {row['question_id']} has neither `image` nor `image_id`")
    return f"{row.get('split', split)}2017/{number:012d}.jpg"
