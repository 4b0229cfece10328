"""One test for everything that is registered: documented, typed, and as its kind promises."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lavis_lite import create_model, registry
from lavis_lite.modules.interfaces import VisionEncoder
from lavis_lite.registry import cards
from lavis_lite.registry.capabilities import lacks

EVERY = [(kind, name) for kind in registry.kinds() for name in registry.index.names(kind)]
PLAIN = (int, float, str, bool, type(None), Any)


def of(kind: str) -> list[str]:
    return [name for k, name in EVERY if k == kind]


# Models that are built for tests in a moment; others wrap what has to be fetched first.
TINY = [name for name in of("model") if "tiny" in cards.types(name)]


def test_every_kind_has_something_registered() -> None:
    assert {kind for kind, _ in EVERY} == set(registry.kinds())
    assert len(TINY) >= 4


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_it_is_documented(kind: str, name: str) -> None:
    builder = registry.entry(kind, name).definition.builder
    text = inspect.getdoc(builder)
    assert text
    first = text.splitlines()[0]
    assert first.endswith(".") or ":" in first or len(text.splitlines()) > 1
    assert builder.__doc__, "the docstring is inherited"


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_its_arguments_have_plain_types(kind: str, name: str) -> None:
    arguments = registry.entry(kind, name).arguments
    wildcard = next(iter(arguments)) if name.endswith("/*") else None
    for parameter in arguments.values():
        if parameter.name == wildcard:
            continue
        assert parameter.annotation is not parameter.empty, parameter
        assert is_plain(parameter.annotation), parameter
        if parameter.default is not parameter.empty:
            plain = (*PLAIN[:-1], tuple, list, dict)
            assert isinstance(parameter.default, plain), parameter


def is_plain(annotation: Any) -> bool:
    """Whether YAML can say a value of this type."""
    if annotation in PLAIN:
        return True
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return all(isinstance(choice, str | int) for choice in arguments)
    if origin in (typing.Union, types.UnionType, list, tuple, dict) or (
        inspect.isclass(origin) and issubclass(origin, Mapping | typing.Sequence)
    ):
        return all(is_plain(a) for a in arguments if a is not ...)
    return False


def test_what_is_plain() -> None:
    assert is_plain(list[int] | None)
    assert is_plain(typing.Mapping[str, typing.Mapping[str, Any]])
    assert not is_plain(Tensor)
    assert not is_plain(list[Tensor])
    assert not is_plain(Callable[[int], int])


# ---- what each kind promises


@pytest.mark.parametrize("name", TINY)
def test_a_model_tells_its_class_and_builds_tiny(name: str) -> None:
    assert issubclass(registry.entry("model", name).result or object, nn.Module)
    model = create_model(name, "tiny")
    assert type(model) is registry.entry("model", name).result
    assert isinstance(model.losses, nn.ModuleDict)
    image = torch.randn(2, 3, model.image_size, model.image_size)
    samples = {"image": image, "text_input": ["a cross", "two red squares"]}
    samples |= {"image0": image, "image1": image.flip(0), "label": torch.tensor([1, 0])}
    samples |= {"answers": [["red"], ["two", "2"]], "weights": [[1.0], [0.7, 0.3]]}
    if model.losses:
        output = model(samples)
        assert output.loss.isfinite()
        named = ["loss", *(f"loss_{k}" for k in model.losses)]
        assert output.keys()[: len(named)] == named


@pytest.mark.parametrize("name", TINY)
def test_what_a_model_can_do_it_does_as_promised(name: str) -> None:
    model = create_model(name, "tiny").eval()
    image = torch.randn(2, 3, model.image_size, model.image_size)
    texts = ["a cross", "two red squares above"]
    with torch.no_grad():
        tokens = model.encode_image(image)
        assert tokens.ndim == 3
        if hasattr(model, "text_embeds"):
            for embeds in (
                model.image_embeds(tokens),
                model.text_embeds(model.encode_text(texts)),
            ):
                lengths = embeds.norm(dim=-1)
                torch.testing.assert_close(lengths, torch.ones_like(lengths))
        if hasattr(model, "match"):
            assert model.match(tokens, texts).shape == (2, 2)
            assert model.rank(tokens, [texts, texts]).shape == (2, 2)
        if hasattr(model, "generate"):
            written = model.generate({"image": image}, max_length=12)
            assert [type(text) for text in written] == [str, str]


@pytest.mark.parametrize("name", of("vision_encoder"))
def test_a_vision_encoder_gives_tokens(name: str) -> None:
    spec = {"name": name.replace("*", "test_vit")}
    encoder = registry.build("vision_encoder", spec, image_size=32)
    assert isinstance(encoder, VisionEncoder)
    assert encoder(torch.randn(2, 3, 32, 32)).shape[::2] == (2, encoder.width)


@pytest.mark.parametrize("name", [name for name in of("text_backbone") if "*" not in name])
def test_a_text_backbone_gives_states(name: str) -> None:
    wanted = {"width": 16, "depth": 1, "num_heads": 2, "mlp_width": 16}
    taken = registry.entry("text_backbone", name).arguments
    spec = {"name": name, **{k: v for k, v in wanted.items() if k in taken}}
    backbone = registry.build("text_backbone", spec, vocab_size=50, encoder_width=8)
    ids = torch.randint(0, 50, (2, 5))
    assert backbone(ids, torch.ones_like(ids)).shape == (2, 5, backbone.width)


@pytest.mark.parametrize("name", of("loss"))
def test_a_loss_says_what_it_requires_and_keeps_no_model(name: str) -> None:
    built = registry.entry("loss", name).result
    assert built is not None
    assert isinstance(built.requires, tuple)  # type: ignore[attr-defined]
    capable = [
        model
        for model in TINY
        if not lacks(registry.entry("model", model).result, built.requires)  # type: ignore
    ]
    assert capable
    model = create_model(capable[0], "tiny")
    loss = registry.build("loss", {"name": name}, model=model)
    assert isinstance(loss, nn.Module)
    assert not list(loss.parameters())  # the model's parameters would be among them


@pytest.mark.parametrize("name", of("dataset"))
def test_a_dataset_can_be_read_by_row(name: str) -> None:
    built = registry.entry("dataset", name).result
    assert built is not None
    assert hasattr(built, "__len__")
    assert hasattr(built, "__getitem__")


@pytest.mark.parametrize("name", of("processor"))
def test_a_processor_is_a_function_of_its_item_and_of_rng(name: str) -> None:
    processor = registry.build("processor", {"name": name}, image_size=16)
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    item: Any = Image.fromarray(pixels) if "image" in name else "A Dog, running!"
    first, again, other = (processor(item, np.random.default_rng(seed)) for seed in (1, 1, 2))
    if isinstance(first, Tensor):
        assert first.shape == (3, 16, 16)
        assert first.dtype == torch.float32
        assert torch.equal(first, again)
        assert torch.equal(first, other) == name.endswith("_eval")
    else:
        assert isinstance(first, str)
        assert first == again == other


@pytest.mark.parametrize("name", of("metric"))
def test_a_metric_says_what_it_requires_and_evaluates(name: str) -> None:
    built = registry.entry("metric", name).result
    assert built is not None
    assert isinstance(built.requires, tuple)  # type: ignore[attr-defined]
    wanted = list(inspect.signature(built.evaluate).parameters)  # type: ignore[attr-defined]
    assert wanted == ["self", "model", "data", "runner"]


@pytest.mark.parametrize("name", of("runner"))
def test_a_runner_has_a_config_that_is_found_without_it_and_runs(name: str) -> None:
    assert registry.index.runner_config(name) is not None
    built = registry.entry("runner", name).result
    assert built is not None
    assert callable(built.run)  # type: ignore[attr-defined]
    assert "config" in registry.entry("runner", name).parameters
