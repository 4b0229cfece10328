from typing import Annotated, Any, TypedDict, Unpack

import pytest

from lavis_lite.errors import ConfigError
from lavis_lite.registry import Registry
from lavis_lite.registry.shared_arguments import Argument


class Size(TypedDict, total=False):
    width: Annotated[int | None, Argument("in pixels.")]
    height: Annotated[int, Argument("in pixels; as wide.", 4)]


class Shape(Size, total=False):
    round: bool


def box(name: str, **shape: Unpack[Shape]) -> tuple[str, dict[str, Any]]:
    return name, dict(shape)


@pytest.fixture
def fresh() -> Registry:
    registry = Registry()
    registry.register("dataset", "box")(box)
    return registry


def test_keys_of_an_unpacked_dict_are_arguments(fresh: Registry) -> None:
    parameters = fresh.entry("dataset", "box").parameters
    assert {key: (p.annotation, p.default) for key, p in parameters.items() if key != "name"} == {
        "width": (int | None, None),
        "height": (int, 4),
        "round": (bool, None),
    }
    assert list(parameters) == ["name", "width", "height", "round"]


def test_they_say_what_they_mean(fresh: Registry) -> None:
    shared = fresh.entry("dataset", "box").shared_arguments
    assert shared["height"].text == "in pixels; as wide."
    assert list(shared) == ["width", "height", "round"]


def test_another_argument_is_refused_with_the_nearest(fresh: Registry) -> None:
    problems = fresh.entry("dataset", "box").argument_problems({"name": "a", "widht": 3})
    assert problems == [
        "takes no 'widht'. Did you mean 'width'? It takes: name, width, height, round"
    ]


def test_what_is_given_is_passed_on_alone() -> None:
    registry = Registry()
    registry.register("dataset", "sized")(sized)
    assert registry.build("dataset", {"name": "sized", "width": 3}) == {"width": 3}
    with pytest.raises(ConfigError, match="takes no 'depth'"):
        registry.build("dataset", {"name": "sized", "depth": 3})


def sized(**size: Unpack[Size]) -> dict[str, Any]:
    return dict(size)
