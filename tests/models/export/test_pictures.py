"""Pictures are prepared without torch as image processors prepare them, to the bit."""

from __future__ import annotations

import json

import numpy
import pytest
from PIL import Image

from lavis_lite import registry
from lavis_lite.models.export.pictures import prepared

MODES = ["RGB", "L", "RGBA", "P", "CMYK", "I;16", "F"]


@pytest.mark.parametrize("name", ["blip_image_eval", "clip_image_eval"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(33, 71), (90, 20), (48, 48)])
def test_a_recipe_gives_what_the_processor_gives(
    name: str, mode: str, size: tuple[int, int]
) -> None:
    numbers = numpy.random.default_rng(0).integers(0, 256, (*size, 3), dtype=numpy.uint8)
    picture = Image.fromarray(numbers)
    picture = picture.convert("L").convert("I;16") if mode == "I;16" else picture.convert(mode)
    process = registry.build("processor", {"name": name, "mean": [0.1, 0.2, 0.3]}, image_size=48)
    recipe = json.loads(json.dumps(process.recipe))  # as the file has it
    assert numpy.array_equal(prepared(picture, recipe), process(picture).numpy())


def test_a_size_need_not_be_square() -> None:
    picture = Image.fromarray(numpy.zeros((30, 40, 3), numpy.uint8))
    process = registry.build("processor", {"name": "clip_image_eval"}, image_size=(32, 48))
    assert prepared(picture, process.recipe).shape == (3, 32, 48)
