"""Questions and answers about the embedded scenes."""

from __future__ import annotations

from typing import Any, Unpack

from lavis_lite import registry
from lavis_lite.data.choice import Choice
from lavis_lite.data.published.answers import weigh
from lavis_lite.data.scenes.questions import Question, all_answers, ask, people_answer
from lavis_lite.data.scenes.splits import SceneRows, scenes_of
from lavis_lite.data.scenes.world import Scene

SIZES = {"human": 4000, "test": 600}


@registry.register("dataset", "scenes_vqa")
class ScenesVqa(SceneRows):
    """A question about each scene: what colour, shape or size, how many, where, whether.

    A row has `answers` with their `weights`, of ten people who are right and do not always use the
    same word (`references`), `question_id`, `question_type` (one of `scene_questions.KINDS`) and
    `answer_type` (`yes/no`, `number`, `other`). Yes and no are equally frequent. `answer_list` has
    every answer there is. The scenes are those of `scenes`: none of `test` is in `human`.

    Args:
        split: `human` or `test`.
        size: rows; by default 4000 and 600.
        image_size: of the pictures, in pixels.
        seed: another seed, other rows.
        level: `easy` or `hard`, as for `scenes`.
        choice: which rows are taken, as of every dataset, see `Choice`.

    Raises:
        ConfigError: on a value out of range.
    """

    splits = tuple(SIZES)

    def __init__(
        self,
        split: str = "human",
        size: int | None = None,
        image_size: int = 64,
        seed: int = 0,
        level: str = "easy",
        **choice: Unpack[Choice],
    ):
        super().__init__("scenes_vqa", SIZES, split, size, image_size, seed, level)
        self.answer_list = all_answers(self._level)
        self._scenes = scenes_of(self._level, split, self._size, seed)
        self._choose(**choice)

    def question(self, index: int) -> tuple[Scene, Question]:
        """The scene of a row, and what is asked about it."""
        return self._question(self._number(index))

    def _question(self, number: int) -> tuple[Scene, Question]:
        scene = self._level.scene(int(self._scenes[number % len(self._scenes)]))
        return scene, ask(scene, self._level, self._rng(number, "question"))

    def _annotation(self, number: int) -> dict[str, Any]:
        _, question = self._question(number)
        references = people_answer(question.answer, self._rng(number, "people"))
        answers, weights = weigh(references)
        return {
            "text_input": question.text,
            "answers": answers,
            "weights": weights,
            "references": references,
            "question_id": number,
            "question_type": question.kind,
            "answer_type": question.answer_type,
            "image_id": self._key(number),
            "key": self._key(number),
        }

    def _row(self, number: int) -> dict[str, Any]:
        scene, _ = self._question(number)
        return {"image": self._draw(scene, number, "image"), **self._annotation(number)}
