"""CLIP's small weights that ship with the package: offline, no account, and good at their task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lavis_lite import load_model, load_model_and_preprocess, registry
from lavis_lite.registry import cards


@pytest.mark.parametrize("name", ["clip", "clip_feature_extractor"])
def test_shipped_weights_fill_the_model(name: str) -> None:
    assert load_model(name, "scenes").load_report.complete


def test_the_shipped_model_finds_texts_of_images_it_has_never_seen() -> None:
    model, image, text = load_model_and_preprocess("clip", "scenes", is_eval=True)
    dataset = registry.build("dataset", {"name": "scenes", "split": "test", "limit": 64})
    rows = [dataset[index] for index in range(len(dataset))]
    pixels = torch.stack([image["eval"](row["image"]) for row in rows])
    texts = [text["eval"](row["text_input"]) for row in rows]
    with torch.no_grad():
        images = model.image_embeds(model.encode_image(pixels))
        found = model.text_embeds(model.encode_text(texts))
    best = (images @ found.T).argmax(dim=1)
    right = [texts[number] == texts[index] for index, number in enumerate(best.tolist())]
    assert sum(right) / len(right) > 0.9  # recorded: 0.95 among 300; chance: 0.016


def test_the_weights_say_which_run_they_are_of() -> None:
    file = Path(cards.released_weights("clip", "scenes"))
    record = json.loads(file.with_name("scenes.json").read_text("utf-8"))["clip_scenes"]
    assert record["file"] == file.name
    assert record["settings"]["model.name"] == "clip"
    assert record["metrics"]["retrieval/txt_r1"] > 90
