"""The metric `zero_shot_classification`: prompts, their mean, top 1 and top 5."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize
from two_processes import run_on_processes

from lavis_lite import create_model, registry
from lavis_lite.data.loader import EvalData
from lavis_lite.data.reader import Processors
from lavis_lite.errors import ConfigError
from lavis_lite.metrics.zero_shot import ZeroShotClassification

RUNNER = SimpleNamespace(device=torch.device("cpu"), seed=0, autocast=contextlib.nullcontext)
NAMES = ["cat", "dog", "cow", "hen", "pig", "fox", "owl"]
PROMPTS = {"photo": 0.0, "drawing": 3.0}


def direction(name: str) -> Tensor:
    return torch.eye(8)[NAMES.index(name)]


class Model(nn.Module):
    """A class is a direction; a drawing of it also leans to the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def encode_image(self, image: Tensor) -> Tensor:
        return image.flatten(1)[:, None]

    def image_features(self, tokens: Tensor) -> Tensor:
        return normalize(tokens[:, 0], dim=-1)

    def encode_text(self, texts: list[str]) -> Tensor:
        self.read += texts
        leaning = [PROMPTS["drawing" if "drawing" in text else "photo"] for text in texts]
        named = torch.stack([direction(text.split()[-1]) for text in texts])
        return (named + torch.tensor(leaning)[:, None] * torch.eye(8)[7])[:, None]

    def text_features(self, states: Tensor) -> Tensor:
        return normalize(states[:, 0], dim=-1)


IMAGES = [
    direction("cat"),
    direction("dog"),
    direction("cow") + 0.9 * direction("dog"),
    direction("hen") + 2 * direction("pig"),
]
LABELS = [0, 1, 2, 3]


class Data:
    def __init__(self, batch_size: int = 2, names: Sequence[str] | None = NAMES) -> None:
        class Rows(list):
            class_names = names

        self.dataset = Rows(
            {"key": f"k{n}", "text_input": NAMES[label], "label": label}
            for n, label in enumerate(LABELS)
        )
        self.batch_size = batch_size

    def batches(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(indices), self.batch_size):
            part = list(indices[start : start + self.batch_size])
            yield {"image": torch.stack([IMAGES[n] for n in part]), "index": part}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_nearest_class_is_predicted(batch_size: int) -> None:
    metric = ZeroShotClassification(text_batch_size=batch_size)
    result = metric.evaluate(Model(), Data(batch_size), RUNNER)
    assert result.metrics == {"top1": 75, "top5": 100}
    assert [row["predicted_class"] for row in result.predictions] == ["cat", "dog", "cow", "pig"]
    assert result.predictions[3]["place"] == 2
    assert result.predictions[3]["class"] == "hen"
    assert result.predictions[0] == {
        **{"key": "k0", "index": 0, "label": 0, "class": "cat", "predicted": 0},
        **{"predicted_class": "cat", "similarity": 1.0, "place": 1, "correct": True},
    }


def test_prompts_are_averaged_as_unit_vectors() -> None:
    model = Model()
    templates = ["a photo of {}", "a drawing of {}"]
    result = ZeroShotClassification(templates=templates).evaluate(model, Data(), RUNNER)
    assert model.read[:2] == ["a photo of cat", "a drawing of cat"]
    photo = direction("cat")
    drawing = normalize(direction("cat") + 3 * torch.eye(8)[7], dim=0)
    expected = normalize(photo + drawing, dim=0) @ direction("cat")
    assert result.predictions[0]["similarity"] == pytest.approx(expected.item(), abs=1e-5)


def test_names_of_classes_can_be_given_and_are_needed() -> None:
    few = ZeroShotClassification(class_names=["dog", "cat", "cow", "hen"])
    figures = few.evaluate(Model(), Data(names=None), RUNNER).metrics
    assert figures == {"top1": 50}  # cat and dog mixed up; of four classes no top 5
    with pytest.raises(ConfigError, match="no names of classes; give class_names"):
        ZeroShotClassification().evaluate(Model(), Data(names=None), RUNNER)
    with pytest.raises(ConfigError, match="label 2 of k2, for 2 names"):
        ZeroShotClassification(class_names=["cat", "dog"]).evaluate(Model(), Data(), RUNNER)


def test_templates_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"'a photo' has no \{\} for the name"):
        ZeroShotClassification(templates=["a photo"])
    with pytest.raises(ConfigError, match="at least one prompt"):
        ZeroShotClassification(templates=[])
    with pytest.raises(ConfigError, match="text_batch_size: 0"):
        ZeroShotClassification(text_batch_size=0)


def _evaluate() -> Any:
    return ZeroShotClassification().evaluate(Model(), Data(), RUNNER)


def test_two_processes_classify_each_image_once() -> None:
    assert run_on_processes(_evaluate, world_size=2) == [_evaluate()] * 2


def test_a_model_classifies_folders_of_classes(tmp_path: Path) -> None:
    for name, colour in (("a1", "red"), ("b2", "blue")):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (70, 60), colour).save(tmp_path / "images" / name / "1.png")
    (tmp_path / "names.json").write_text(json.dumps({"a1": "red square", "b2": "blue square"}))
    spec = {"name": "class_folders", "path": str(tmp_path / "images")}
    dataset = registry.build("dataset", {**spec, "classes": str(tmp_path / "names.json")})
    image = registry.build("processor", {"name": "blip_image_eval"}, image_size=64)
    text = registry.build("processor", {"name": "blip_caption"})
    data = EvalData(dataset, Processors(image=image, text=text), batch_size=2)
    model = create_model("blip_image_text_matching", "tiny")
    result = ZeroShotClassification(templates=["a {}.", "one {}"]).evaluate(model, data, RUNNER)
    assert result.metrics["top1"] in (0, 50, 100)
    assert [row["class"] for row in result.predictions] == ["red square", "blue square"]
