"""Right and wrong values for the arguments of models' public methods, by kind of argument.

A kind has values that are refused, each with a part of the message that names it, and values in
another form than the formal one that mean the same.
"""

from __future__ import annotations

import functools
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from lavis_lite import create_model, registry
from lavis_lite.models.base import RENAMED
from lavis_lite.registry import cards

TEXTS = ["a red circle", "two small squares"]
ANSWERS = ["red", "two", "blue"]
NAN = float("nan")


# ---- the models and their methods


@functools.cache
def model_of(name: str) -> Any:
    """A small model of every kind, its weights random but always the same."""
    torch.manual_seed(0)
    if name == "hf_captioner":
        from hf_models import save_blip

        folder = save_blip(Path(tempfile.mkdtemp()))
        return create_model(name, source=str(folder), image_size=32).eval()
    return create_model(name, "tiny").eval()


def methods_of(name: str) -> list[str]:
    """The public methods of a model that are ours, without second names of the same."""
    found = inspect.getmembers(registry.entry("model", name).result, callable)
    return [
        method
        for method, function in found
        if not method.startswith("_")
        and method not in RENAMED
        and str(getattr(function, "__module__", "")).startswith("lavis_lite")
    ]


def arguments_of(model: Any, method: str) -> list[str]:
    """The names of the arguments of a model's method."""
    parameters = inspect.signature(getattr(model, method)).parameters.values()
    return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]


# All but `endpoint`, which has no weights: its calls are a server's, see test_endpoint.py.
# Packaged ones: other tests register toys, and a server has no tiny type.
MODELS = [
    name
    for name in cards.list_models()
    if name != "endpoint" and registry.index.module("model", name) is not None
]


# ---- kinds of arguments


class Wrong(NamedTuple):
    """A value that is refused, and what the message says of it."""

    value: Any
    says: str


Make = Callable[[Any], Any]  # of a model, a value


class Kind(NamedTuple):
    """The values of one kind of argument.

    right: the formal value.
    wrong: label -> a value that is refused.
    same: label -> a value that means the same as ``right``.
    """

    right: Make
    wrong: Callable[[Any], dict[str, Wrong]]
    same: Callable[[Any], dict[str, Any]] = lambda model: {}


def pixels(model: Any, count: int = 2) -> torch.Tensor:
    drawn = torch.rand(count, 3, *size_of(model), generator=torch.Generator().manual_seed(1))
    return drawn if model.card["name"] == "hf_captioner" else drawn * 2 - 1


def size_of(model: Any) -> tuple[int, int]:
    return (model.image_size,) * 2 if isinstance(model.image_size, int) else model.image_size


def picture(model: Any) -> Image.Image:
    height, width = size_of(model)
    numbers = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(numbers)


@torch.no_grad()
def tokens(model: Any) -> torch.Tensor:
    return model.encode_image(pixels(model))


@torch.no_grad()
def pair_tokens(model: Any) -> torch.Tensor:
    """As many images as a text is read with, of two texts."""
    number = len(getattr(model, "image_names", ("image",)))
    return model.encode_image(pixels(model, 2 * number))


def width_of_texts(model: Any) -> int:
    tower = getattr(model, "text_tower", None) or getattr(model, "text_decoder", None)
    tower = getattr(tower, "bert", tower) or model.text_encoder
    return tower.width


@torch.no_grad()
def states(model: Any) -> torch.Tensor:
    if hasattr(model, "encode_text"):
        return model.encode_text(TEXTS)
    return torch.randn(2, 5, width_of_texts(model), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def context(model: Any) -> Any:
    return model.image_context(pair_tokens(model))


@torch.no_grad()
def question_context(model: Any) -> Any:
    return model.question_context(model.read_questions(tokens(model), TEXTS)[0])


@torch.no_grad()
def question_mask(model: Any) -> torch.Tensor:
    return model.tokenize(TEXTS).mask


def wrong_images(model: Any) -> dict[str, Wrong]:
    height, width = size_of(model)
    return {
        "None": Wrong(None, "image"),
        "a number": Wrong(3, "int (3)"),
        "a path of nothing": Wrong("nowhere.png", "missing file: nowhere.png"),
        "a list of paths": Wrong(["nowhere.png"], "missing file: nowhere.png"),
        "an empty list": Wrong([], "an empty list"),
        "no image": Wrong(torch.zeros(0, 3, height, width), "empty batch"),
        "one channel": Wrong(torch.zeros(2, 1, height, width), "(2, 1,"),
        "channels last": Wrong(torch.zeros(2, height, width, 3), "3) of float32"),
        "a plane": Wrong(torch.zeros(height, width), f"({height}, {width})"),
        "whole numbers": Wrong(torch.zeros(2, 3, height, width, dtype=torch.long), "int64"),
        "sizes": Wrong([torch.zeros(3, height, width), torch.zeros(3, height, 9)], "sizes"),
        "an array last": Wrong(np.zeros((2, height, width, 3)), "array (2,"),
        "words": Wrong(np.array(["a", "b"]), "array (2,)"),
        "a dict": Wrong({"image": 1}, "dict"),
    }


def same_images(model: Any) -> dict[str, Any]:
    image = pixels(model)
    return {
        "a list": [image[0], image[1]],
        "a list of batches": [image[:1], image[1:]],
        "a tuple": (image[0], image[1]),
        "an array": image.numpy(),
        "an array of doubles": image.double().numpy(),
        "a list of arrays": [image[0].numpy(), image[1].numpy()],
    }


def wrong_texts(model: Any) -> dict[str, Wrong]:
    return {
        "None": Wrong(None, "None"),
        "a number": Wrong(3, "int (3)"),
        "bytes": Wrong(b"a red circle", "bytes"),
        "numbers": Wrong([1, 2], "int (1)"),
        "one of them None": Wrong([TEXTS[0], None], "[1]: None"),
        "lists": Wrong([[TEXTS[0]], [TEXTS[1]]], "list"),
        "a tensor": Wrong(torch.zeros(2), "tensor (2,)"),
        "a dict": Wrong({"text": TEXTS}, "dict"),
        "a set": Wrong(set(TEXTS), "set"),
    }


def same_texts(model: Any) -> dict[str, Any]:
    return {"a tuple": tuple(TEXTS), "an array": np.array(TEXTS), "an iterator": iter(TEXTS)}


def wrong_batches(model: Any) -> dict[str, Wrong]:
    """Texts, or rows of ids that are none."""
    batch = model.tokenize(TEXTS)
    far = batch._replace(ids=batch.ids.clone().fill_(len(model.tokenizer)))
    return wrong_texts(model) | {
        "an id too high": Wrong(far, f"id {len(model.tokenizer)}"),
        "floats as ids": Wrong(batch._replace(ids=batch.ids.float()), "float32"),
        "a row": Wrong(batch._replace(ids=batch.ids[0]), "tensor ("),
        "a short mask": Wrong(batch._replace(mask=batch.mask[:, :-1]), "mask: a tensor"),
    }


def same_batches(model: Any) -> dict[str, Any]:
    return same_texts(model) | {"tokenised": model.tokenize(TEXTS)}


def counted(wrong: Callable[[Any], dict[str, Wrong]]) -> Callable[[Any], dict[str, Wrong]]:
    """Texts that belong to two images."""
    return lambda model: wrong(model) | {"three": Wrong([*TEXTS, "more"], "3 ")}


def wrong_candidates(model: Any) -> dict[str, Wrong]:
    return {
        "None": Wrong(None, "None"),
        "a number": Wrong(3, "int (3)"),
        "a mixture": Wrong([[TEXTS[0]], TEXTS[1]], "list"),
        "uneven": Wrong([TEXTS, TEXTS[:1]], "3 texts for 2 images"),
        "too few": Wrong([TEXTS], "2 texts for 2 images"),
        "numbers": Wrong([[1], [2]], "int (1)"),
        "a None": Wrong([TEXTS, [TEXTS[0], None]], "texts[1][1]: None"),
        "bytes": Wrong(b"red", "bytes"),
    }


def wrong_tensors(axes: str) -> Callable[[Any], dict[str, Wrong]]:
    return lambda model: {
        "None": Wrong(None, axes),
        "a text": Wrong("a red circle", "str ('a red circle')"),
        "a list": Wrong([1.0, 2.0], "list"),
        "images": Wrong(pixels(model), "(2, 3,"),
        "whole numbers": Wrong(torch.zeros(2, 4, 8, dtype=torch.long), "int64"),
        "another width": Wrong(torch.zeros(2, 4, 7), "(2, 4, 7)"),
    }


def wrong_contexts(model: Any) -> dict[str, Wrong]:
    short = context(model)[:-1]
    return {
        "None": Wrong(None, "None"),
        "tokens": Wrong(tokens(model), "tensor (2,"),
        "a text": Wrong("red", "str ('red')"),
        "too few layers": Wrong(short, type(short).__name__),
        "numbers": Wrong([1] * len(context(model)), "list"),
    }


def wrong_masks(model: Any) -> dict[str, Wrong]:
    return {
        "a list": Wrong([1, 1], "list"),
        "a row": Wrong(torch.ones(4, dtype=torch.long), "(4,)"),
        "too many": Wrong(torch.ones(3, 4, dtype=torch.long), "(3, 4)"),
    }


def wrong_ids(model: Any) -> dict[str, Wrong]:
    return {
        "a text": Wrong("red", "str ('red')"),
        "floats": Wrong(torch.ones(2, 6), "float32"),
        "a row": Wrong(torch.ones(4, dtype=torch.long), "(4,)"),
        "too high": Wrong(torch.full((2, 6), 10**6), "id 1000000"),
        "below 0": Wrong(torch.full((2, 6), -1), "id -1"),
    }


def wrong_choices(model: Any) -> dict[str, Wrong]:
    return {
        "a text": Wrong("red", "['red']"),
        "none": Wrong([], "candidates"),
        "None": Wrong(None, "None"),
        "numbers": Wrong([1, 2], "int (1)"),
        "lists": Wrong([["red"], ["two"]], "list"),
        "a number": Wrong(3, "int (3)"),
    }


def wrong_answers(model: Any) -> dict[str, Wrong]:
    return {
        "a text": Wrong("red", "['red']"),
        "none": Wrong([], "answer_list"),
        "None": Wrong(None, "answer_list"),
        "numbers": Wrong([1, 2], "int (1)"),
        "an empty one": Wrong(["red", " "], "' '"),
        "a number": Wrong(3, "int (3)"),
    }


def numbers(right: float, *refused: float) -> Kind:
    """A number; some are out of range."""
    whole = isinstance(right, int)
    other = {f"{number}": Wrong(number, f"{number}") for number in refused}
    wrong = {
        "a text": Wrong(str(right), f"str '{right}'"),
        "a list": Wrong([right], "list"),
        "a bool": Wrong(True, "bool True"),
        **({"a fraction": Wrong(right + 0.5, "float")} if whole else {}),
        **other,
    }
    array = np.int64(right) if whole else np.float32(right)
    return Kind(lambda model: right, lambda model: wrong, lambda model: {"NumPy's": array})


def lengths(right: int) -> Kind:
    """A number of tokens, too many of which are refused where the model has a position for each."""
    bounded, free = numbers(right, 0, 10_000), numbers(right, 0)

    def wrong(model: Any) -> dict[str, Wrong]:
        language = getattr(model, "language", None)
        endless = language is not None and language.room(0, [], 1) is None
        return (free if endless else bounded).wrong(model)

    return bounded._replace(wrong=wrong)


def choices(right: str, misspelt: str, wanted: str) -> Kind:
    """One of some words."""
    wrong = {
        "misspelt": Wrong(misspelt, f"Did you mean {wanted!r}"),
        "a number": Wrong(3, "3"),
        "a list": Wrong([right], right),
    }
    return Kind(lambda model: right, lambda model: wrong)


FLAG = Kind(
    lambda model: False,
    lambda model: {"a text": Wrong("no", "str 'no'"), "a number": Wrong(3, "int 3")},
)
MAPPING = {"a text": Wrong("a", "str 'a'"), "a list": Wrong([1], "list [1]")}
TEXT = {"a number": Wrong(3, "int 3"), "a list": Wrong(["a"], "list ['a']")}
ANYTHING = Kind(lambda model: None, lambda model: {})
