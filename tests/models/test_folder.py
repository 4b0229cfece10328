"""Models as folders: what is written, that it comes back to the bit, what run folders tell."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from lavis_lite import config, create_model, load_model, load_model_and_preprocess, runners
from lavis_lite.checkpoint.weights import read_weights
from lavis_lite.errors import CheckpointError, ConfigError
from lavis_lite.models.folder import read, save
from lavis_lite.modules.text.load_tokenizer import PACKAGED

IMAGE = torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)


def same_state(one: nn.Module, other: nn.Module) -> bool:
    mine, its = one.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(mine[k], its[k]) for k in mine)


def write_vocabulary(folder: Path, *more: str) -> Path:
    folder.mkdir()
    (folder / "vocab.txt").write_text(PACKAGED.read_text() + "".join(f"{x}\n" for x in more))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a short run that changes sizes and processors."""
    folder = tmp_path_factory.mktemp("run")
    short = config.load_and_bind(
        "blip/caption_scenes.yaml",
        [
            "model.type=tiny",
            "model.prompt='this is '",
            "model.text.depth=1",
            "data.train=[{name: scenes, split: human, size: 8}]",
            "data.batch_size=4",
            "data.processors.text.train.prompt='this is '",
            "evaluate=[{name: caption, generate: {max_length: 8, min_length: 5, num_beams: 1},"
            " data: {name: scenes, split: test, size: 2}}]",
            f"run={{output_dir: {folder}, max_steps: 2, device: cpu}}",
            "optim.ema_decay=0.5",
        ],
    )
    runners.run(short)
    return folder


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("blip_caption", "scenes"),
        ("blip_retrieval", "tiny"),
        ("blip_image_text_matching", "scenes"),
        ("blip_pretrain", "tiny"),
    ],
)
def test_a_saved_model_comes_back_to_the_bit(tmp_path: Path, name: str, type: str) -> None:
    model: Any = load_model(name, type, is_eval=True)
    assert model.save_pretrained(tmp_path / "model") == tmp_path / "model"
    again: Any = load_model(checkpoint=str(tmp_path / "model"), is_eval=True)
    assert same_state(model, again)
    assert again.__class__ is model.__class__
    assert again.card["type"] == type
    assert again.load_report.complete
    if hasattr(model, "generate"):
        options = {"max_length": 12, "min_length": 5}
        assert again.generate({"image": IMAGE}, **options) == model.generate(
            {"image": IMAGE}, **options
        )


def test_what_was_overridden_is_saved_and_may_be_overridden_again(tmp_path: Path) -> None:
    model: Any = create_model("blip_caption", "tiny", prompt="look: ", text={"depth": 1})
    model.save_pretrained(tmp_path)
    again: Any = create_model(checkpoint=str(tmp_path))
    assert again.prompt == "look: "
    assert same_state(model, again)
    larger: Any = load_model(checkpoint=str(tmp_path), image_size=128)
    assert larger.load_report.interpolated == ["visual_encoder.pos_embed"]
    named: Any = load_model("blip_caption", checkpoint=str(tmp_path))
    assert same_state(model, named)
    with pytest.raises(CheckpointError, match=r"misshapen|missing"):
        load_model("blip_caption", "scenes", checkpoint=str(tmp_path))  # a type that it has not


def test_processors_come_with_the_model(tmp_path: Path) -> None:
    load_model("blip_caption", "tiny").save_pretrained(tmp_path)  # type: ignore[operator]
    _, images, texts = load_model_and_preprocess(checkpoint=str(tmp_path))
    assert texts["train"]("A dog.") == "a picture of a dog"
    assert images["eval"].size == (64, 64)


def test_a_vocabulary_of_its_own_travels_along(tmp_path: Path) -> None:
    source = write_vocabulary(tmp_path / "source", "zyxw", "Zyxwv")
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    model: Any = create_model("blip_caption", "tiny", tokenizer=str(source))
    model.save_pretrained(tmp_path / "model")
    shutil.rmtree(source)
    moved = shutil.move(tmp_path / "model", tmp_path / "moved")
    again: Any = load_model(checkpoint=str(moved))
    assert again.tokenizer.vocab == model.tokenizer.vocab
    assert not again.tokenizer.lowercase
    assert same_state(model, again)
    again.save_pretrained(tmp_path / "twice")
    assert same_state(model, load_model(checkpoint=str(tmp_path / "twice")))


def test_the_packages_vocabulary_is_not_copied(tmp_path: Path) -> None:
    load_model("blip_caption", "tiny").save_pretrained(tmp_path)  # type: ignore[operator]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]


def test_a_saved_model_needs_nothing_that_it_started_from(tmp_path: Path) -> None:
    model: Any = create_model("blip_caption", "tiny")
    # As if it had started from them: these would be fetched again.
    args = model.card["args"]
    vision = {**args["vision"], "pretrained": True}
    text = {**args["text"], "pretrained": "nobody/has-this-bert"}
    model.card = {**model.card, "args": {**args, "vision": vision, "text": text}}
    model.save_pretrained(tmp_path)
    assert same_state(model, load_model(checkpoint=str(tmp_path)))


# ---- the folders of runs


def test_a_run_is_loaded_by_its_folder_alone(finished: Path) -> None:
    model, _, texts = load_model_and_preprocess(checkpoint=str(finished))
    assert model.prompt == "this is "
    assert texts["train"]("a dog") == "this is a dog"
    trained = read_weights(finished)
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


def test_the_averaged_weights_of_a_run_are_loaded_by_their_file(finished: Path) -> None:
    file = finished / "checkpoints/step-00000002/ema.safetensors"
    model: Any = load_model(checkpoint=str(file))
    assert model.prompt == "this is "
    assert not same_state(model, load_model(checkpoint=str(finished)))
    assert same_state(model, load_model("blip_caption", checkpoint=str(file)))


def test_the_figures_of_a_run_are_on_the_card(finished: Path, tmp_path: Path) -> None:
    load_model(checkpoint=str(finished)).save_pretrained(tmp_path)  # type: ignore[operator]
    saved = read(tmp_path)
    measured = json.loads((finished / "complete.json").read_text())["metrics"]
    assert saved is not None
    assert saved.metrics == measured
    assert f"| caption/rouge_l | {measured['caption/rouge_l']:.4g} |" in (
        tmp_path / "README.md"
    ).read_text(encoding="utf-8")


# ---- the card


def test_the_card_says_what_it_is_and_how_to_load_it(tmp_path: Path) -> None:
    model: Any = load_model("blip_caption", "scenes")
    model.save_pretrained(tmp_path, metrics={"cider_d": 1.23456})
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    assert OmegaConf.create(head).library_name == "lavis_lite"
    assert "# blip_caption, type scenes\n\nA model that describes an image." in body
    assert f"| Parameters | {model.show_n_params(return_str=False):,} |" in body
    assert "| Vision tower | timm/vit_base_patch16_224 |" in body
    assert "| cider_d | 1.235 |" in body
    (code,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code.replace("PATH/OF/THIS/FOLDER", str(tmp_path)), found)
    assert same_state(found["model"], model)


def test_a_card_without_figures_claims_none(tmp_path: Path) -> None:
    load_model("blip_caption", "scenes").save_pretrained(tmp_path)  # type: ignore[operator]
    assert "Results" not in (tmp_path / "README.md").read_text(encoding="utf-8")


# ---- what goes wrong


def test_a_model_that_nothing_is_known_of_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Linear: only a model that load_model, create_model"):
        save(nn.Linear(2, 2), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_weights_alone_do_not_say_which_model_they_are_of(tmp_path: Path) -> None:
    load_model("blip_caption", "tiny").save_pretrained(tmp_path)  # type: ignore[operator]
    (tmp_path / "config.json").write_text('{"model_type": "another"}')  # as transformers writes it
    with pytest.raises(ConfigError, match="which model"):
        load_model(checkpoint=str(tmp_path))
    assert load_model("blip_caption", "tiny", checkpoint=str(tmp_path))
    with pytest.raises(ConfigError, match="which model"):
        load_model()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "config.json: is damaged"),
        ('{"lavis_lite": {"format": 1}}', "config.json: is damaged"),
        (
            '{"lavis_lite": {"format": 2}, "name": "blip_caption", "type": null, "args": {}}',
            "config.json: has format 2, this lavis_lite reads up to 1",
        ),
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    load_model("blip_caption", "tiny").save_pretrained(tmp_path)  # type: ignore[operator]
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=problem):
        load_model(checkpoint=str(tmp_path))
