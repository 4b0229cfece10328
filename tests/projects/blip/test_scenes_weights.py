"""The weights that ship with the package: there, small, and as good as their record says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lavis_lite import list_models, load_model, load_model_and_preprocess, registry
from lavis_lite.errors import CheckpointError, UnknownName
from lavis_lite.registry import cards

NUM_SCENES = 40


def has_weights(name: str) -> bool:
    """Tell whether weights of the model's type `scenes` ship."""
    try:
        return Path(cards.released_weights(name, "scenes")).suffix == ".safetensors"
    except (CheckpointError, UnknownName):
        return False


SHIPPED = [name for name in list_models("blip*") if has_weights(name)]


def scenes() -> list[dict]:
    dataset = registry.build("dataset", {"name": "scenes", "split": "test"})
    return [dataset[index] for index in range(NUM_SCENES)]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_scenes_type_loads_whole_and_offline(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAVIS_LITE_OFFLINE", "1")
    assert load_model(name, "scenes").load_report.complete


def test_the_captioner_states_the_facts_of_scenes_it_never_saw() -> None:
    model, image, _ = load_model_and_preprocess("blip_caption", "scenes", is_eval=True)
    rows = scenes()
    batch = torch.stack([image["eval"](row["image"]) for row in rows])
    captions = model.generate({"image": batch}, min_length=5)
    dataset = registry.build("dataset", {"name": "scenes", "split": "test"})
    right = [
        dataset.facts(caption) == dataset.facts(row["text_input"])
        for caption, row in zip(captions, rows, strict=True)
    ]
    assert sum(right) >= 0.9 * NUM_SCENES


def test_the_matcher_tells_true_captions_from_those_of_other_scenes() -> None:
    model, image, _ = load_model_and_preprocess("blip_image_text_matching", "scenes", is_eval=True)
    rows = scenes()
    batch = torch.stack([image["eval"](row["image"]) for row in rows])
    texts = [row["text_input"] for row in rows]
    true, false = (
        model({"image": batch, "text_input": paired}).softmax(1)[:, 1]
        for paired in (texts, texts[1:] + texts[:1])
    )
    assert true.mean() > 0.9
    assert false.mean() < 0.1


def test_questions_about_scenes_it_never_saw_are_answered_as_people_do() -> None:
    model, image, text = load_model_and_preprocess("blip_vqa", "scenes", is_eval=True)
    dataset = registry.build("dataset", {"name": "scenes_vqa", "split": "test"})
    rows = [dataset[index] for index in range(NUM_SCENES)]
    samples = {
        "image": torch.stack([image["eval"](row["image"]) for row in rows]),
        "text_input": [text["eval"](row["text_input"]) for row in rows],
    }
    ranked = model.predict_answers(samples, answer_list=dataset.answer_list)
    written = model.predict_answers(samples, inference_method="generate")
    for answers in (ranked, written):
        right = [answer in row["answers"] for answer, row in zip(answers, rows, strict=True)]
        assert sum(right) >= 0.8 * NUM_SCENES


def test_statements_about_pairs_of_scenes_it_never_saw_are_told_apart() -> None:
    model, image, text = load_model_and_preprocess("blip_nlvr", "scenes", is_eval=True)
    dataset = registry.build("dataset", {"name": "scenes_nlvr", "split": "test"})
    rows = [dataset[index] for index in range(2 * NUM_SCENES)]
    samples = {
        name: torch.stack([image["eval"](row[name]) for row in rows])
        for name in ("image0", "image1")
    }
    samples |= {
        "text_input": [text["eval"](row["text_input"]) for row in rows],
        "label": torch.tensor([row["label"] for row in rows]),
    }
    found = model.predict(samples)
    assert (found["predictions"].argmax(1) == found["targets"]).float().mean() >= 0.7


@pytest.mark.parametrize("of", ["blip_caption", "blip2"])
def test_every_shipped_file_is_listed_recorded_and_small(of: str) -> None:
    folder = Path(cards.released_weights(of, "scenes")).parent
    files = {path.name: path for path in folder.glob("*.safetensors")}
    shipped = [Path(cards.released_weights(name, "scenes")) for name in SHIPPED]
    listed = {path.name for path in shipped if path.parent == folder}
    recorded = {run["file"] for run in json.loads((folder / "scenes.json").read_text()).values()}
    assert set(files) == listed == recorded
    assert all(path.stat().st_size < 5_000_000 for path in files.values())
