"""Scenes with classes: labels are what the captions of the same scenes say."""

from __future__ import annotations

import numpy as np
import pytest

from lavis_lite.data.scenes.captions import Scenes
from lavis_lite.data.scenes.classes import ScenesClasses
from lavis_lite.errors import ConfigError


@pytest.mark.parametrize("of", ["colour", "shape", "size"])
def test_the_label_is_that_fact_of_the_first_thing(of: str) -> None:
    classes, captions = ScenesClasses(of=of, size=40), Scenes("test", size=40)
    for index in range(40):
        row = classes[index]
        assert row["text_input"] == classes.class_names[row["label"]]
        assert f"first.{of}={row['text_input']}" in captions.scene(index).facts()
        assert np.array_equal(np.asarray(row["image"]), np.asarray(captions[index]["image"]))
        assert row["key"] == captions[index]["key"]


def test_things_are_colour_and_shape_and_the_background_is_the_scene_s() -> None:
    things, grounds = ScenesClasses(size=40), ScenesClasses(of="background", size=40)
    assert len(things.class_names) == 24
    facts = [Scenes("test", size=40).scene(index).facts() for index in range(40)]
    for index in range(40):
        colour, shape = things[index]["text_input"].split()
        assert {f"first.colour={colour}", f"first.shape={shape}"} <= facts[index]
        assert f"background={grounds[index]['text_input']}" in facts[index]
    assert len({things[index]["label"] for index in range(40)}) > 10


def test_unknown_classes_and_splits_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no classes of 'color'. Did you mean 'colour'\?"):
        ScenesClasses(of="color")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no split 'web'"):
        ScenesClasses(split="web")
