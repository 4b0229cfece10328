"""The embedded scenes with a class: what a model can be asked to tell from the names alone."""

from __future__ import annotations

from typing import Any, Literal, Unpack

from lavis_lite import registry
from lavis_lite.data.choice import Choice
from lavis_lite.data.scenes.splits import SceneRows, scenes_of
from lavis_lite.data.scenes.world import BACKGROUNDS, SHAPES, SIZES, Scene
from lavis_lite.errors import ConfigError, suggest

SPLITS = {"human": 1000, "test": 300}
Of = Literal["thing", "colour", "shape", "size", "background"]


@registry.register("dataset", "scenes_classes")
class ScenesClasses(SceneRows):
    """Pictures of scenes whose `label` says what one thing about them is.

    The thing is the one that captions name first: the left or top one. `class_names` has the names
    of the classes, and `text_input` is the row's. The pictures are those of `scenes`.

    Args:
        of: `thing` (colour and shape: 24 classes at the easy level), `colour`, `shape` or `size` of
            it, or the scene's `background`.
        split: `human` or `test`.
        size: rows; by default 1000 and 300.
        image_size: of the pictures, in pixels.
        seed: another seed, other rows.
        level: `easy` or `hard`, as for `scenes`.
        choice: which rows are taken, as of every dataset, see `Choice`.

    Raises:
        ConfigError: on a value out of range.
    """

    splits = tuple(SPLITS)

    def __init__(
        self,
        of: Of = "thing",
        split: str = "test",
        size: int | None = None,
        image_size: int = 64,
        seed: int = 0,
        level: str = "easy",
        **choice: Unpack[Choice],
    ):
        super().__init__("scenes_classes", SPLITS, split, size, image_size, seed, level)
        colours = self._level.colours
        classes: dict[str, list[str]] = {
            "thing": [f"{colour} {shape}" for colour in colours for shape in SHAPES],
            "colour": list(colours),
            "shape": list(SHAPES),
            "size": list(SIZES),
            "background": list(BACKGROUNDS),
        }
        if of not in classes:
            raise ConfigError(
                f"scenes_classes: no classes of {of!r}.{suggest(of, classes)}"
                f" Known: {list(classes)}"
            )
        self.class_names = classes[of]
        self._of = of
        self.name = f"scenes-{level}-{split}-{seed}"  # the pictures are the same
        self._scenes = scenes_of(self._level, split, self._size, seed)
        self._choose(**choice)

    def _scene(self, number: int) -> Scene:
        return self._level.scene(int(self._scenes[number % len(self._scenes)]))

    def _annotation(self, number: int) -> dict[str, Any]:
        scene = self._scene(number)
        thing = scene.things[0]
        name = {
            "thing": f"{thing.colour} {thing.shape}",
            "background": scene.background,
            **vars(thing),
        }[self._of]
        key = self._key(number)
        label = self.class_names.index(name)
        return {"text_input": name, "label": label, "image_id": key, "key": key}

    def _row(self, number: int) -> dict[str, Any]:
        image = self._draw(self._scene(number), number, "image")
        return {"image": image, **self._annotation(number)}
