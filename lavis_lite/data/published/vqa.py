"""Published questions about images, with people's answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lavis_lite import registry
from lavis_lite.data.files.images import MAX_PIXELS
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

    def rows_of(self, files: list[str]) -> Iterator[Row]:
        """Questions with their answers, from files of all kinds together."""
        asked: list[Row] = []
        official: list[Row] = []
        answered: dict[Any, Row] = {}
        for file, data in self._json(files):
            if isinstance(data, dict) and isinstance(data.get("questions"), list):
                official += _official_questions(data, file)
            elif isinstance(data, dict) and isinstance(data.get("annotations"), list):
                for row in data["annotations"]:
                    demand(row, ("question_id", "answers"), file)
                    answered[row["question_id"]] = row
            elif isinstance(data, list) and data and isinstance(data[0], dict):
                asked += data
                demand(data[0], ("question", "question_id"), file)
            elif isinstance(data, dict | list) and all(isinstance(one, str) for one in data):
                self.answer_list = list(data)
            else:
                raise DataError(
                    f"{file}: neither questions nor answers: a JSON {type(data).__name__} that"
                    f" begins with {str(data)[:60]!r}"
                )
        if not asked and not official:
            raise DataError(f"{', '.join(files)}: no questions in them")
        # Where both are there, the lists say where the images are and VQA's own repeat them.
        for row in asked or official:
            yield self._question(row, answered.get(row["question_id"], {}))

    def _question(self, row: Row, annotation: Row) -> Row:
        references = [answer["answer"] for answer in annotation.get("answers", [])]
        references = references or _references(row)
        if not all(isinstance(answer, str) for answer in references):
            raise DataError(f"question {row['question_id']}: {references!r:.80}; answers are texts")
        if self.split == "train" and not references:
            raise DataError(f"question {row['question_id']} has no answer to train on")
        image = row.get("image") or _coco_2017(row, self.split)
        kept = {name: row[name] for name in _TRAVEL if row.get(name) is not None}
        kept |= {name: annotation[name] for name in _TYPES if name in annotation}
        return {"image": image, "question": row["question"], "references": references, **kept}

    def _row(self, number: int) -> Row:
        row = super()._row(number)
        answers, weights = self.weigh(row["references"]) if row["references"] else ([], [])
        return {**row, "answers": answers, "weights": weights}

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
        exif: bool = False,
        max_pixels: int = MAX_PIXELS,
        limit: int | None = None,
        where: dict[str, Any] | None = None,
        fold: dict[str, Any] | None = None,
    ):
        self.answer_weight = answer_weight
        super().__init__(split, images, annotations, root, exif, max_pixels, limit, where, fold)

    def weigh(self, references: list[str]) -> tuple[list[str], list[float]]:
        """The answer and its weight."""
        answers, _ = weigh(references)
        return answers, [self.answer_weight] * len(answers)


def _references(row: Row) -> list[str]:
    """People's answers in a row of BLIP's, LAVIS's or A-OKVQA's lists; none in a test set."""
    found = row.get("answer", row.get("direct_answers"))
    return [found] if isinstance(found, str) else list(found or [])


def _official_questions(data: Row, file: str) -> Iterator[Row]:
    """VQA's own questions, with the image's path in COCO's folders."""
    subset = data.get("data_subtype", "")
    for row in data["questions"]:
        demand(row, ("question", "question_id", "image_id"), file)
        yield {**row, "image": f"{subset}/COCO_{subset}_{int(row['image_id']):012d}.jpg"}


def _coco_2017(row: Row, split: str) -> str:
    """The image of a question of A-OKVQA as published."""
    if not isinstance(row.get("image_id"), int):
        raise DataError(f"question {row['question_id']} has neither `image` nor `image_id`")
    return f"{row.get('split', split)}2017/{row['image_id']:012d}.jpg"
