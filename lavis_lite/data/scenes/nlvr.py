"""Pairs of the embedded scenes with statements about them, true or false."""

from __future__ import annotations

from typing import Any, Unpack

import numpy

from lavis_lite import registry
from lavis_lite.data.choice import Choice
from lavis_lite.data.published.nlvr2 import exchange
from lavis_lite.data.scenes.splits import SceneRows, scenes_of
from lavis_lite.data.scenes.statements import Pair, Statement, state

SIZES = {"human": 4000, "test": 600}
_POOL = 2000


@registry.register("dataset", "scenes_nlvr")
class ScenesNlvr(SceneRows):
    """Two pictures and a statement about them; `label` is 1 where it is true, else 0.

    Every statement comes twice in a row, once true and once false, of different pictures: nothing
    can be told from the text alone. `statement_type` is one of `scene_statements.KINDS`. The scenes
    are those of `scenes`: none of `test` is in `human`.

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
    class_names = ("false", "true")
    augment = staticmethod(exchange)

    def __init__(
        self,
        split: str = "human",
        size: int | None = None,
        image_size: int = 64,
        seed: int = 0,
        level: str = "easy",
        **choice: Unpack[Choice],
    ):
        super().__init__("scenes_nlvr", SIZES, split, size, image_size, seed, level)
        # Of a fixed number of scenes, or a larger size would change the rows before it.
        self._scenes = scenes_of(self._level, split, _POOL, seed)
        self._choose(**choice)

    def statement(self, index: int) -> tuple[Pair, Statement, bool]:
        """The scenes of a row, what is stated about them, and whether it is so."""
        return self._statement(self._number(index))

    def _statement(self, number: int) -> tuple[Pair, Statement, bool]:
        both, place = divmod(number, 2)
        rng = self._rng(both, "statement")
        true = self._pair(rng)
        statement = state(true, rng)
        # Which of the two comes first says nothing either.
        if place == int(rng.integers(2)):
            return true, statement, True
        while statement.holds(other := self._pair(rng)):
            pass
        return other, statement, False

    def _pair(self, rng: numpy.random.Generator) -> Pair:
        left, right = rng.choice(self._scenes, 2, replace=False)
        return self._level.scene(int(left)), self._level.scene(int(right))

    def _annotation(self, number: int) -> dict[str, Any]:
        _, statement, holds = self._statement(number)
        return {
            "text_input": statement.text,
            "label": int(holds),
            "statement_type": statement.kind,
            "image_id": self._key(number),
            "key": self._key(number),
        }

    def _row(self, number: int) -> dict[str, Any]:
        pair, _, _ = self._statement(number)
        pictures = {
            f"image{side}": self._draw(scene, number, f"image{side}")
            for side, scene in enumerate(pair)
        }
        return {**pictures, **self._annotation(number)}
