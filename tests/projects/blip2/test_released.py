"""Files of the first stage in their published layouts: whole without storage, small with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_lite import create_model, load_model
from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.checkpoint.weights import save_weights
from lavis_lite.errors import CheckpointError

NAMES = ["blip2", "blip2_feature_extractor", "blip2_image_text_matching"]
LAYERS, BLOCKS = 12, 39
# type -> letter of its file, vision width, tensors and millions of numbers that it holds
TYPES = {
    "pretrain": ("P", 1408, 346, 186.7),
    "pretrain_vitL": ("P", 1024, 346, 183.2),
    "coco": ("C", 1408, 857, 1173.2),
}
# Sizes in the layouts -> those of the type `tiny`.
SMALL = {"768": 64, "3072": 128, "30523": 1063, "32": 8, "256": 32, "D": 48, "1408": 48, "677": 17}
SMALL |= {"4224": 144, "6144": 209}


def lines(letter: str) -> list[tuple[str, list[str]]]:
    text = Path(__file__).with_name("published_qformer.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in text if not line.startswith("#")]
    return [(key, shape.split()) for key, shape, files in rows if letter in files]


def layout(letter: str, layers: int, blocks: int, sizes: dict[str, int]) -> dict[str, list[int]]:
    """Key -> shape of a file, with so many layers of the Q-Former and blocks of the tower."""
    found = {}
    for key, dims in lines(letter):
        depth = range(blocks) if ".blocks." in key else range(layers)
        numbers = depth if "*" in key else range(0, layers, 2) if "+" in key else range(1)
        shape = [sizes.get(dim) or int(dim) for dim in dims]
        found |= {re.sub(r"[*+]", str(number), key): shape for number in numbers}
    return found


def small_file(letter: str) -> dict[str, Tensor]:
    """A file of the type `tiny`'s size, every number drawn, tied copies equal."""
    made = {key: torch.rand(shape) for key, shape in layout(letter, 4, 3, SMALL).items()}
    head, tower = "Qformer.cls.predictions.", "Qformer.bert.embeddings."
    made[f"{head}decoder.weight"] = made[f"{tower}word_embeddings.weight"]
    made[f"{head}decoder.bias"] = made[f"{head}bias"]
    made[f"{tower}position_ids"] = torch.arange(512)[None]
    return made


def vocabulary(folder: Path) -> str:
    tokens = [f"[unused{number}]" for number in range(30522)]
    for number, token in {0: "PAD", 100: "UNK", 101: "CLS", 102: "SEP", 103: "MASK"}.items():
        tokens[number] = f"[{token}]"
    (folder / "vocab.txt").write_text("\n".join(tokens))
    return str(folder)


@pytest.fixture(scope="module")
def tower_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The vision encoder of a model of the type `tiny`, as a file of its own."""
    path = tmp_path_factory.mktemp("tower") / "tower.safetensors"
    return str(save_weights(create_model("blip2", "tiny").visual_encoder, path))


@pytest.mark.parametrize("type", TYPES)
def test_the_whole_file_of_a_type_fits_tensor_for_tensor(
    type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter, width, count, millions = TYPES[type]
    shapes = layout(letter, LAYERS, BLOCKS, {"D": width})
    assert len(shapes) == count
    with torch.device("meta"):
        file = {key: torch.empty(shape) for key, shape in shapes.items()}
        no_tower = {"vision": {"pretrained": False}}
        model: Any = create_model("blip2", type, tokenizer=vocabulary(tmp_path), **no_tower)
    if letter == "P":
        model.kept_elsewhere = {"visual_encoder.": "the encoder's own file"}
    monkeypatch.setattr(torch, "equal", lambda a, b: a.shape == b.shape)  # no numbers on meta
    report = load_state(model, file)
    assert report.complete
    assert report.elsewhere == model.kept_elsewhere
    stored = {k: v for k, v in file.items() if "decoder." not in k and "position_ids" not in k}
    assert sum(v.numel() for v in stored.values()) / 1e6 == pytest.approx(millions, abs=0.05)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == sum(v.numel() for v in stored.values())


@pytest.mark.parametrize("name", NAMES)
def test_what_a_frozen_encoder_left_out_comes_from_its_own_file_and_the_report_says_so(
    name: str, tower_file: str, tmp_path: Path
) -> None:
    torch.save({"model": small_file("P"), "epoch": 9}, tmp_path / "blip2_pretrained.pth")
    model: Any = load_model(
        name,
        "tiny",
        checkpoint=str(tmp_path / "blip2_pretrained.pth"),
        vision={"pretrained": tower_file},
    )
    assert model.load_report.complete
    assert model.load_report.elsewhere == {"visual_encoder.": tower_file}
    assert f"visual_encoder.* from {tower_file}" in str(model.load_report)
    recorded = small_file("P")
    assert model.query_tokens.shape == recorded["query_tokens"].shape
    tower = create_model("blip2", "tiny", vision={"pretrained": tower_file}).visual_encoder
    for key, tensor in model.visual_encoder.state_dict().items():
        assert torch.equal(tensor, tower.state_dict()[key])


def test_the_numbers_of_a_file_are_those_of_the_model(tower_file: str, tmp_path: Path) -> None:
    file = small_file("C")
    save_weights(file, tmp_path / "coco.safetensors")
    model: Any = load_model("blip2", "tiny", checkpoint=str(tmp_path / "coco.safetensors"))
    assert not model.load_report.elsewhere  # the file has the encoder
    state = model.state_dict()
    for key, tensor in file.items():
        if not key.endswith("position_ids"):
            own = "Qformer.query_tokens" if key == "query_tokens" else key
            assert torch.equal(state[own], tensor), key


def test_a_model_that_is_saved_and_loaded_again_is_the_same(tmp_path: Path) -> None:
    model: Any = create_model("blip2", "tiny").eval()
    model.save_pretrained(tmp_path / "saved")
    again: Any = load_model(checkpoint=str(tmp_path / "saved"), is_eval=True)
    image = torch.randn(2, 3, 56, 56)
    tokens = model.encode_image(image)
    assert torch.equal(again.encode_image(image), tokens)
    assert torch.equal(again.match(tokens, ["a", "b"]), model.match(tokens, ["a", "b"]))


@pytest.mark.parametrize(
    ("added", "says"),
    [
        ("opt_proj.weight", "second stage"),
        ("t5_proj.bias", "second stage"),
        ("text_encoder.embeddings.LayerNorm.weight", "of BLIP, not BLIP-2"),
    ],
)
def test_weights_of_another_stage_are_refused_with_where_they_belong(added: str, says: str) -> None:
    model = create_model("blip2", "tiny")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=says):
        load_state(model, {**small_file("C"), added: torch.zeros(2)})
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_an_encoder_that_is_nowhere_is_an_error_that_names_the_key_to_set() -> None:
    with pytest.raises(CheckpointError, match=r"model\.vision\.pretrained"):
        load_state(create_model("blip2", "tiny"), small_file("P"))


def test_half_of_an_encoder_is_missing_and_not_elsewhere(tower_file: str) -> None:
    model = create_model("blip2", "tiny", vision={"pretrained": tower_file})
    file = small_file("C")
    del file["visual_encoder.pos_embed"]
    with pytest.raises(CheckpointError, match=r"missing: visual_encoder.pos_embed"):
        load_state(model, file)
