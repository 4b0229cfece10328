"""Parts that break their contract or do not fit each other, refused before anything is built."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, T5Config

from lavis_lite import config, registry
from lavis_lite.config.fit import misfits
from lavis_lite.errors import ConfigError
from lavis_lite.modules.text.load_tokenizer import PACKAGED
from lavis_lite.registry.plugins import ComponentIndex

TRAIN = """
runner: {name: train}
model: {name: blip_pretrain, type: tiny}
data: {train: [{name: scenes}]}
run: {output_dir: out}
"""


class Widthless(nn.Module):
    """Has an ``embed_dim`` and forgets ``width``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_dim = 8

    def forward(self, image: Tensor) -> Tensor:
        return image


class Bare(nn.Module):
    """Has nothing at all."""


class Inheriting(Widthless):
    """Gets its width from a class between."""

    def __init__(self) -> None:
        super().__init__()
        self.width = self.embed_dim


class Annotated(nn.Module):
    """Says its width outright."""

    width: int = 4


class Computed(nn.Module):
    """Nobody can tell from its source."""

    def __init__(self) -> None:
        super().__init__()
        setattr(self, "wid" + "th", 4)


class Needy(nn.Module):
    """Asks for something that is nearly there."""

    requires: ClassVar = ("image_embed",)


@pytest.fixture(autouse=True)
def names(leave_no_names: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for encoder in (Widthless, Bare, Inheriting, Annotated, Computed):
        registry.register("vision_encoder", f"my_{encoder.__name__.lower()}")(encoder)
    registry.register("loss", "needy")(Needy)


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever draws the weights of a module that has storage fails."""

    def refuse(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        assert tensor.is_meta, "something was built"
        return tensor

    monkeypatch.setattr(torch.nn.init, "normal_", refuse)


def problems(tmp_path: Path, *overrides: str) -> list[str]:
    """The lines of the report for a config with these overrides."""
    path = tmp_path / "run.yaml"
    path.write_text(TRAIN)
    try:
        config.load_and_bind(path, overrides)
    except ConfigError as error:
        return [line.removeprefix("on the command line: ") for line in str(error).splitlines()]
    return []


# ---- an encoder without a width


@pytest.mark.parametrize(
    ("name", "hint"),
    [("my_widthless", "self.width = self.embed_dim"), ("my_bare", "self.width = ...")],
)
def test_an_encoder_without_width_is_named_with_contract_and_remedy(
    name: str, hint: str, tmp_path: Path, unbuilt: None
) -> None:
    (line,) = problems(tmp_path, f"model.vision={{name: {name}}}")
    assert line.startswith(f"model.vision: vision_encoder '{name}' ({__file__}:")
    assert "has no `width`, the D of its states (B, N, D) that the contract of a" in line
    assert hint in line


@pytest.mark.parametrize("name", ["my_inheriting", "my_annotated", "my_computed", "timm/resnet18"])
def test_an_encoder_with_a_width_or_of_which_none_can_tell_passes(name: str) -> None:
    assert list(misfits("vision_encoder", {"name": name}, {})) == []


# ---- a loss that asks for what the model lacks


def test_a_loss_names_what_is_lacking_the_nearest_and_what_would_do(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, "model.losses.itm.name=needy")
    assert line.startswith(
        "model.losses.itm: loss 'needy' requires image_embed, which model 'blip_pretrain' "
        "(BlipPretrain) lacks. It has 'image_embeds'. What it can be given: "
    )
    assert "info_nce" in line
    (line,) = problems(
        tmp_path, "model={name: blip_caption, type: tiny, losses: {itm: {name: itm}}}"
    )
    assert "loss 'itm' requires" in line
    assert line.endswith("What it can be given: lm")


def test_a_metric_whose_arguments_ask_for_more_is_refused_with_the_remedy(tmp_path: Path) -> None:
    model = "model={name: clip, type: tiny}"
    retrieval = "{name: retrieval, data: {name: scenes}, rerank: %s}"
    (line,) = problems(tmp_path, model, "evaluate=[{name: retrieval, data: {name: scenes}}]")
    assert line == (
        "evaluate[0]: metric 'retrieval' with `rerank: true` requires rank, which model 'clip' "
        "(Clip) lacks; `rerank: false` ranks by cosine alone"
    )
    assert problems(tmp_path, model, f"evaluate=[{retrieval % 'false'}]") == []
    assert problems(tmp_path, f"evaluate=[{retrieval % 'true'}]") == []
    caption = "{name: caption, data: {name: scenes}, match: true}"
    (line,) = problems(tmp_path, "model={name: blip_caption, type: tiny}", f"evaluate=[{caption}]")
    assert line.startswith("evaluate[0]: metric 'caption' with `match: true` requires match, which")


def test_chunks_of_a_batch_with_shared_statistics_are_refused(
    tmp_path: Path, unbuilt: None
) -> None:
    model = "model={name: clip, type: tiny, gradient_cache: 4, vision: {name: timm/test_resnet}}"
    (line,) = problems(tmp_path, model)
    assert line.startswith("model: model.gradient_cache: conv1.1 (BatchNorm2d) keeps statistics")
    assert problems(tmp_path, model, "model.gradient_cache=0") == []
    assert problems(tmp_path, model, "model.vision.name=timm/test_vit") == []


# ---- a text tower too short


def test_a_tower_too_short_for_the_texts_is_refused(tmp_path: Path, unbuilt: None) -> None:
    assert problems(tmp_path, "model.text.max_length=30") == []
    (line,) = problems(tmp_path, "model.text.max_length=29")
    assert line == (
        "model.text: text_backbone 'med' holds 29 tokens, but texts have up to 30 "
        "(model.max_length): use model.max_length=29, or a tower of 30 and more"
    )


def test_a_fusion_layer_above_the_tower_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, "model.text.fusion_layer=2") == []
    (line,) = problems(tmp_path, "model.text.fusion_layer=3")
    assert line.startswith("model.text: med: fusion_layer 3 of 3 layers; it is from 1 to 2")


def test_a_tower_of_transformers_too_short_is_refused(tmp_path: Path) -> None:
    BertConfig(vocab_size=3000, max_position_embeddings=20).save_pretrained(tmp_path / "short")
    T5Config(vocab_size=3000, num_layers=1).save_pretrained(tmp_path / "endless")
    model = {"max_length": 30, "tokenizer": str(PACKAGED)}
    found = list(misfits("text_backbone", {"name": f"hf/{tmp_path}/short"}, model))
    assert len(found) == 1
    assert found[0].startswith(f"text_backbone 'hf/{tmp_path}/short' holds 20 tokens, but texts")
    assert list(misfits("text_backbone", {"name": f"hf/{tmp_path}/endless"}, model)) == []
    assert list(misfits("text_backbone", {"name": "hf/nobody/nothing"}, model)) == []


@pytest.mark.parametrize("text", ["clip_text", "med", "hf"])
def test_every_kind_of_tower_is_held_against_the_length_of_texts(text: str, tmp_path: Path) -> None:
    bert = {"vocab_size": 3000, "hidden_size": 64, "num_attention_heads": 4}
    BertConfig(max_position_embeddings=77, **bert).save_pretrained(tmp_path / "bert")
    spec = {"name": f"hf/{tmp_path}/bert" if text == "hf" else text}
    spec |= {"max_length": 77} if text == "med" else {}

    def found(max_length: int) -> list[str]:
        model = {"max_length": max_length, "tokenizer": str(PACKAGED)}
        return list(misfits("text_backbone", spec, model))

    assert found(77) == []
    (problem,) = found(78)
    assert "holds 77 tokens, but texts have up to 78 (model.max_length): use model.max" in problem
    (problem,) = found(1)
    assert problem == "texts of 1 tokens (model.max_length); at least 2, for a token and the end"


def test_a_clip_whose_tower_is_too_short_is_refused_with_its_place(
    tmp_path: Path, unbuilt: None
) -> None:
    (line,) = problems(tmp_path, "model={name: clip, type: tiny, max_length: 100}")
    assert line.startswith("model.text: text_backbone 'clip_text' holds 77 tokens, but texts have")


def test_a_tower_without_an_end_needs_to_know_how_much_to_read(tmp_path: Path) -> None:
    T5Config(vocab_size=3000, num_layers=1).save_pretrained(tmp_path)
    model = {"max_length": None, "tokenizer": str(PACKAGED)}
    (problem,) = misfits("text_backbone", {"name": f"hf/{tmp_path}"}, model)
    assert problem.endswith("say how many tokens to read, such as model.max_length=64")


# ---- a tokenizer that does not fit the vocabulary


@pytest.mark.parametrize("name", ["clip_text", "med", "hf/nobody/nothing"])
@pytest.mark.parametrize("source", ["/nowhere", "hf//nowhere", "no/such/place", "vocab.txt"])
def test_a_tokenizer_that_is_nowhere_is_refused(name: str, source: str) -> None:
    model = {"max_length": 30, "tokenizer": source}
    found = list(misfits("text_backbone", {"name": name}, model))
    path = source.removeprefix("hf/")
    assert found == [
        f"model.tokenizer: {path} does not exist; a file, a folder or a hub id is expected"
    ]
    assert list(misfits("text_backbone", {"name": name}, {**model, "tokenizer": "own/er"})) == []


def test_a_folder_that_is_no_text_tower_is_refused(tmp_path: Path) -> None:
    (problem,) = misfits("text_backbone", {"name": "hf//nowhere"}, {"max_length": 8})
    assert problem.startswith("hf//nowhere: /nowhere does not exist")
    (problem,) = misfits("text_backbone", {"name": f"hf/{tmp_path}"}, {"max_length": 8})
    assert problem.startswith(f"hf/{tmp_path}: ")


def test_a_tokenizer_of_other_words_than_the_checkpoint_is_refused(
    tmp_path: Path, unbuilt: None
) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128}
    bert = BertConfig(vocab_size=90000, num_attention_heads=4, **sizes)
    bert.save_pretrained(tmp_path)
    (line,) = problems(tmp_path, f"model.text.pretrained={tmp_path}")
    assert line.startswith(f"model.text: BERT checkpoint {tmp_path}: it has 90000 words, the tok")
    assert line.endswith("use the tokenizer of the checkpoint")
    bert.vocab_size = 50
    bert.save_pretrained(tmp_path)
    (line,) = problems(tmp_path, f"model.text.pretrained={tmp_path}")
    assert "of which only [DEC] and [ENC] may be new" in line


def test_a_checkpoint_of_another_size_is_refused_with_what_to_set(tmp_path: Path) -> None:
    BertConfig(num_attention_heads=8, hidden_size=64, intermediate_size=128).save_pretrained(
        tmp_path
    )
    found = problems(tmp_path, f"model.text.pretrained={tmp_path}")
    assert [line.rpartition(": ")[2] for line in found[:2]] == [
        "set model.text.num_heads=8",
        "set model.text.depth=12",
    ]


def test_a_tokenizer_with_more_tokens_than_an_hf_tower_is_refused(tmp_path: Path) -> None:
    BertConfig(vocab_size=50).save_pretrained(tmp_path)
    vocab = tmp_path / "vocab.txt"
    vocab.write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(60))])
    )
    spec, model = {"name": f"hf/{tmp_path}"}, {"tokenizer": str(vocab)}
    (problem,) = misfits("text_backbone", spec, model)
    assert problem == (
        f"text_backbone 'hf/{tmp_path}' knows 50 tokens, the tokenizer 67: "
        f"take the model's own (model.tokenizer=hf/{tmp_path})"
    )


# ---- a name that exists twice


PLUGIN = """
from lavis_lite import registry

@registry.register("loss", "twice")
class Loss:
    requires = ()
"""


def test_two_files_that_register_one_name_are_both_named(tmp_path: Path) -> None:
    for name in ("first.py", "second.py"):
        (tmp_path / name).write_text(PLUGIN)
    line = problems(tmp_path, f"plugins=[{tmp_path}/first.py, {tmp_path}/second.py]")[0]
    assert line.startswith("plugins[1]: loss 'twice' is already")
    assert f"already registered at {tmp_path}/first.py:4" in line
    assert line.endswith("needs another name, such as 'second_twice'")


def test_two_packages_that_list_one_name_are_both_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for package in ("acme_one", "acme_two"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "zoo.yaml").write_text("components: {loss: {.parts: [twice, itc]}}")
    importlib.invalidate_caches()
    found = registry.Registry(index=ComponentIndex(["lavis_lite", "acme_one", "acme_two"]))
    expected = (
        "loss 'twice' exists twice: in acme_one.parts and in acme_two.parts. Each name has one "
        "owner: uninstall one of them, or let it list acme_two_twice"
    )
    assert found.problem("loss", "twice") == expected
    with pytest.raises(ConfigError, match="exists twice"):
        found.get("loss", "twice")
    assert found.problem("loss", "itc") is None  # the core's, whoever else claims it
    assert "already belongs to lavis_lite.losses" in found.index.failures["acme_one.parts"]
