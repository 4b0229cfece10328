"""The packaged first stage, on the scenes: texts, matches and features of a trained model."""

from typing import Any

import pytest
import torch

from lavis_lite import load_dataset, load_model_and_preprocess


@pytest.fixture(scope="module")
def scenes() -> dict[str, Any]:
    """Eight test scenes: their pictures, (B, 3, 64, 64), and texts."""
    _, images, _ = load_model_and_preprocess("blip2", "scenes", is_eval=True)
    rows = [load_dataset("scenes", split="test")["test"][index] for index in range(8)]
    return {
        "image": torch.stack([images["eval"](row["image"]) for row in rows]),
        "text_input": [row["text_input"] for row in rows],
    }


@pytest.mark.parametrize("num_beams", [1, 3])
def test_texts_do_not_depend_on_the_batch_though_some_end_early(
    scenes: dict[str, Any], num_beams: int
) -> None:
    model, _, _ = load_model_and_preprocess("blip2", "scenes", is_eval=True)
    options = {"num_beams": num_beams, "max_length": 30, "min_length": 5}
    together = model.generate(scenes, **options)
    alone = [model.generate({"image": image[None]}, **options)[0] for image in scenes["image"]]
    assert together == alone
    assert len({len(text.split()) for text in together}) > 1


def test_a_scene_fits_its_own_text_best(scenes: dict[str, Any]) -> None:
    model, _, _ = load_model_and_preprocess("blip2_image_text_matching", "scenes", is_eval=True)
    turned = {**scenes, "text_input": scenes["text_input"][::-1]}
    own, other = (model(samples).softmax(1)[:, 1] for samples in (scenes, turned))
    assert own.min() > 0.5 > other.mean()
    cosines = (model(samples, match_head="itc")[:, 0] for samples in (scenes, turned))
    assert torch.greater(*cosines).all()
