"""Old import paths hand on what moved; LAVIS's places say where to go."""

from __future__ import annotations

import importlib
import sys

import pytest

import lavis_lite


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("model", "VisionLanguageModel"),
        ("vision", "timm_encoder"),
        ("text.tokenizer", "load_tokenizer"),
        ("text.tokenizer", "TextBatch"),
        ("text.hf_tokenizer", "tokenizer_for"),
        ("text.pooling", "pool"),
        ("zoo", "load_model"),
        ("zoo", "card"),
        ("weights", "read_weights"),
        ("data.captions", "BlipCaption"),
        ("data.transforms", "BlipImageEval"),
        ("overlay", "getAttMap"),
        ("capabilities.gradcam", "compute_gradcam"),
    ],
)
def test_a_documented_place_hands_its_names_on_and_warns(module: str, name: str) -> None:
    sys.modules.pop(f"lavis_lite.{module}", None)
    with pytest.warns(DeprecationWarning, match=rf"lavis_lite\.{module} is lavis_lite\."):
        old = importlib.import_module(f"lavis_lite.{module}")
    assert getattr(old, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        old.nothing  # noqa: B018


@pytest.mark.parametrize("moved", lavis_lite._MOVED.values())
def test_what_moved_is_where_it_is_said_to_be(moved: list[str]) -> None:
    assert moved
    for place in moved:
        assert importlib.import_module(f"lavis_lite.{place}").__name__ == f"lavis_lite.{place}"


@pytest.mark.parametrize(
    ("module", "instead"),
    [
        ("common.registry", "lavis_lite.registry"),
        ("tasks", "lavis-lite list --kind runner"),
        ("processors.blip_processors", "load_processor"),
        ("datasets.builders", "load_dataset"),
    ],
)
def test_a_place_of_lavis_says_what_to_use_here(module: str, instead: str) -> None:
    with pytest.raises(ImportError, match=instead):
        importlib.import_module(f"lavis_lite.{module}")


def test_lavis_models_is_a_place_here_too() -> None:
    from lavis_lite.models import load_model_and_preprocess, model_zoo

    assert load_model_and_preprocess is lavis_lite.load_model_and_preprocess
    assert len(model_zoo) == len(lavis_lite.model_zoo)
