"""The parts of models as exported programs: the live model's numbers, at any batch and length."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tokenizers import Tokenizer as Rules
from torch import Tensor, nn

from lavis_lite import cli, create_model
from lavis_lite.errors import ConfigError
from lavis_lite.models.export import description
from lavis_lite.models.export.onnx_files import Session
from lavis_lite.models.export.parts import parts_of
from lavis_lite.models.export.write import export_model, exported
from lavis_lite.modules.text.text_batch import TextBatch

TEXTS = ["a dog", "two small red birds on a tree", "it", "a cat and a dog", "blue"]
SMALL = {"vision": {"depth": 1}, "text": {"depth": 1}}


def tiny(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return create_model(name, "tiny", **{**SMALL, **arguments}).eval()


def images(count: int, side: int = 64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(7))


def close(found: Any, expected: Tensor) -> bool:
    found = torch.from_numpy(found) if isinstance(found, numpy.ndarray) else found
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def retrieval() -> Any:
    return tiny("blip_image_text_matching")


@pytest.fixture(scope="module")
def folder(retrieval: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("retrieval") / "onnx"
    export_model(retrieval, target)
    return target


@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnx_files_give_the_models_numbers(count: int, retrieval: Any, folder: Path) -> None:
    image, text = images(count), retrieval.tokenize(TEXTS[:count])
    inputs = {"ids": text.ids.numpy(), "mask": text.mask.numpy()}
    seen = Session(folder / "image.onnx")({"image": image.numpy()})
    read = Session(folder / "text.onnx")(inputs)
    judged = Session(folder / "match.onnx")({"image_tokens": seen["image_tokens"], **inputs})
    with torch.no_grad():
        tokens, states = retrieval.encode_image(image), retrieval.encode_text(text)
        assert close(seen["image_tokens"], tokens)
        assert close(seen["image_features"], retrieval.image_features(tokens))
        assert close(read["text_tokens"], states)
        assert close(read["text_features"], retrieval.text_features(states))
        assert close(judged["logits"], retrieval.match(tokens, text))


def test_the_file_beside_says_what_the_parts_take(retrieval: Any, folder: Path) -> None:
    content = json.loads((folder / "export.json").read_text())
    assert set(content["parts"]) == {"image", "text", "match"}
    assert content["parts"]["match"]["inputs"] == [
        {"name": "image_tokens", "shape": ["batch", 17, 64], "dtype": "float32"},
        {"name": "ids", "shape": ["batch", "length"], "dtype": "int64"},
        {"name": "mask", "shape": ["batch", "length"], "dtype": "int64"},
    ]
    assert content["parts"]["match"]["outputs"] == [
        {"name": "logits", "shape": ["batch", 2], "dtype": "float32"}
    ]
    assert content["model"]["name"] == "blip_image_text_matching"
    assert content["left_out"] == {"caption": "it lacks generate"}
    assert content["captions"] is None
    assert content["preprocessing"]["size"] == [64, 64]
    assert torch.__version__.startswith(content["versions"]["torch"])
    assert content["tokenizer"]["max_length"] == retrieval.max_length
    assert description.read(folder).parts["text"].difference <= 1e-4


def test_axes_have_their_names_in_the_onnx_file(folder: Path) -> None:
    import onnx

    (ids, *_) = onnx.load(folder / "text.onnx").graph.input
    assert [axis.dim_param for axis in ids.type.tensor_type.shape.dim] == ["batch", "length"]


def test_the_tokenizer_beside_gives_the_models_ids(retrieval: Any, folder: Path) -> None:
    rules = Rules.from_file(str(folder / "tokenizer.json"))
    for text in [*TEXTS, "Ein [SEP] [MASK] Café!"]:
        ids = retrieval.tokenizer.encode([text], 100).ids[0].tolist()
        assert rules.encode(text).ids == ids
        kept = [index for index in ids if index not in retrieval.tokenizer.special_ids]
        assert rules.decode(kept) == retrieval.tokenizer.decode(ids)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A captioner whose first layer reads the text alone, and its torch programs."""
    text = {"depth": 2, "fusion_layer": 1}
    model = tiny("blip_caption", text=text)
    target = tmp_path_factory.mktemp("programs") / "torch"
    export_model(model, target, "torch")
    return model, target


def test_torch_programs_give_the_models_logits_step_by_step(programs: tuple[Any, Path]) -> None:
    model, folder = programs
    image, context, step = (
        torch.export.load(folder / f"{name}.pt2").module()
        for name in ("image", "caption_context", "caption_step")
    )
    pixels = images(2)
    (tokens,) = image(pixels)
    seen = context(tokens)
    ids = torch.tensor([[4, 9, 11, 7, 30], [4, 8, 6, 5, 31]])
    with torch.no_grad():
        expected_tokens = model.encode_image(pixels)
        batch = TextBatch(ids, torch.ones_like(ids)).replace_first(model.tokenizer.bos_id)
        expected = model.decode_logits(model.image_context(expected_tokens), batch)
    assert close(tokens, expected_tokens)
    heads, width = seen[0].shape[1], seen[0].shape[3]
    cache = [torch.zeros(2, heads, 0, width)] * 4
    for place, new in [(1, batch.ids[:, :2]), (2, batch.ids[:, 2:3]), (4, batch.ids[:, 3:])]:
        logits, *cache = step(new, *cache, *seen)
        assert close(logits, expected[:, place])


def test_a_program_holds_no_weights_of_other_parts(programs: tuple[Any, Path]) -> None:
    model, folder = programs
    held = torch.export.load(folder / "image.pt2").state_dict
    assert held
    assert all("visual_encoder" in name for name in held)
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.pt2")}
    own = sum(weight.numel() for weight in model.visual_encoder.parameters()) * 4
    assert sizes["image.pt2"] < 1.2 * own + 200_000


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_dual_encoders_are_exported(name: str) -> None:
    """Traced alone: what becomes of a program is the same for every model."""
    model = tiny(name)
    groups, left_out = parts_of(model)
    assert set(groups) == ({"image", "text", "match"} if name == "siglip" else {"image", "text"})
    assert "caption" in left_out
    text = model.tokenize(TEXTS[:4])
    with torch.no_grad():
        tokens, states = model.encode_image(images(4)), model.encode_text(text)
        seen = exported(groups["image"][0]).module()(images(4))
        read = exported(groups["text"][0]).module()(*text)
        assert close(seen[1], model.image_features(tokens))
        assert close(read[0], states)
        assert close(read[1], model.text_features(states))
        if name == "siglip":
            (judged,) = exported(groups["match"][0]).module()(tokens, *text)
            assert close(judged, model.match(tokens, text))


class Looks(nn.Module):
    """A model of strangers that only encodes images, with dropout in training."""

    image_size = 8

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.patches = nn.Conv2d(3, 4, 4, 4)
        self.dropout = nn.Dropout(0.5)

    def encode_image(self, image: Tensor) -> Tensor:
        return self.dropout(self.patches(image).flatten(2).transpose(1, 2))


def test_a_strangers_model_is_exported_as_in_evaluation_and_left_in_its_mode(
    retrieval: Any, tmp_path: Path
) -> None:
    model = Looks(retrieval.tokenizer).train()
    found = export_model(model, tmp_path / "out", "torch")
    assert set(found.parts) == {"image"}
    assert found.preprocessing is None
    assert model.training
    assert model.dropout.training
    (tokens,) = torch.export.load(tmp_path / "out" / "image.pt2").module()(images(5, side=8))
    assert close(tokens, model.eval().encode_image(images(5, side=8)))


# ---- what cannot be exported


class Peculiar(Looks):
    """A model whose matching head no tracer can follow."""

    def match(self, tokens: Tensor, text: Any) -> Tensor:
        if tokens.sum() > 0:  # no program without graph breaks
            return torch.zeros(len(text.ids), 2)
        return torch.ones(len(text.ids), 2)


def test_a_part_that_cannot_be_traced_is_named_and_the_others_are_written(
    retrieval: Any, tmp_path: Path
) -> None:
    found = export_model(Peculiar(retrieval.tokenizer), tmp_path / "out", "torch")
    assert set(found.parts) == {"image"}
    assert found.left_out["match"].partition(":")[0].isidentifier()  # the error's name
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["export.json", "image.pt2", "tokenizer.json"]


def test_a_part_that_differs_from_the_model_is_not_written(
    retrieval: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavis_lite.models.export.write.TOLERANCE", -1.0)
    with pytest.raises(ConfigError, match="image: RuntimeError: the exported part differs"):
        export_model(Looks(retrieval.tokenizer), tmp_path / "out", "torch")
    assert list(tmp_path.iterdir()) == []


def test_a_captioner_without_a_med_says_so() -> None:
    model = tiny("blip_caption")
    model.text_decoder = nn.Identity()
    groups, left_out = parts_of(model)
    assert set(groups) == {"image"}
    assert left_out["caption"] == "its texts are not written by the decoder of a MED"


def test_a_model_of_which_nothing_can_be_exported_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"Linear: nothing of it can be exported: image: it lacks"
    ):
        export_model(nn.Linear(2, 2), tmp_path / "out", "torch")
    assert list(tmp_path.iterdir()) == []


def test_wrong_targets_are_refused_before_anything_is_done(
    retrieval: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"'onxx'. Did you mean 'onnx'\? Known: onnx, torch"):
        export_model(retrieval, tmp_path / "out", "onxx")
    with pytest.raises(ConfigError, match="int8: it is of ONNX files"):
        export_model(retrieval, tmp_path / "out", "torch", int8=True)
    with pytest.raises(ConfigError, match="is there already"):
        export_model(retrieval, tmp_path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript .* pip install 'lavis_lite\[export\]'"):
        export_model(retrieval, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_half_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bfloat16 on cpu; .* `model.float\(\).cpu\(\)`"):
        export_model(tiny("clip").bfloat16(), tmp_path / "out", "torch")


# ---- the command


def test_the_command_says_what_was_written_and_what_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny("clip")
    model.save_pretrained(tmp_path / "clip")
    words = ["export", "clip", "--checkpoint", tmp_path / "clip", "--format", "torch"]
    code = cli.main([*map(str, words), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert code == 0
    assert said.startswith(f"wrote {tmp_path / 'out'}: export.json, and as torch\n  image.pt2 ")
    assert "not exported: match, because it lacks match\n" in said
    assert (tmp_path / "out" / "text.pt2").is_file()


def test_the_command_refuses_before_it_loads_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["export", "no_such_model", "--format", "tensorrt", "--out", str(tmp_path)])
    assert code == 2
    assert "Known: onnx, torch" in capsys.readouterr().err
