"""Compiled layers: the same numbers, names and captions; one code for all layers of a tower."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lavis_lite import create_model, load_model
from lavis_lite.errors import ConfigError
from lavis_lite.modules.layers.compile import check_compiler, compile_towers
from lavis_lite.modules.layers.prepack import prepack
from lavis_lite.modules.layers.tower_layers import layers_of, recompute_activations
from lavis_lite.modules.med.absorbed_attention import AbsorbedProjections
from lavis_lite.modules.med.decoder import GroundedDecoder
from lavis_lite.runners.train.loss_module import LossModule

LOSSES = {"itc": {"queue_size": 16}}
WORDS = [
    "a",
    "red",
    "circle",
    "stands",
    "left",
    "of",
    "the",
    "small",
    "blue",
    "square",
    "on",
    "a",
    "green",
    "ground",
]


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Layers are traced, but no code is written."""
    real = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **options: real(self, backend="eager", **options)
    )
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def afresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def num_graphs() -> int:
    return counters["stats"]["unique_graphs"]


def pretraining(depth: int = 2) -> Any:
    torch.manual_seed(0)
    text = {"dropout": 0.0, "depth": depth}
    return create_model("blip_pretrain", "tiny", text=text, losses=LOSSES).train()


def captioner(depth: int = 2) -> Any:
    torch.manual_seed(0)
    model = create_model("blip_caption", "tiny", text={"depth": depth})
    for parameter in model.parameters():  # so that captions differ, and end at different lengths
        parameter.data.mul_(3)
    return model.eval()


def batch(num_words: int) -> dict[str, Any]:
    """Three pairs, of which one text is shorter."""
    image = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(num_words))
    texts = [" ".join(WORDS[start : start + num_words - start]) for start in (0, 1, 2)]
    return {"image": image, "text_input": texts, "seed": 1}


def losses_and_gradients(model: Any, samples: dict[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    output = model(samples)
    output.loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {**{n: loss.detach() for n, loss in output.losses.items()}, **gradients}


# ---- what is compiled


def test_the_layers_of_all_towers_and_of_the_momentum_copy_are_compiled(quickly: None) -> None:
    model = pretraining()
    names = list(model.state_dict())
    towers = ("visual_encoder", "text_encoder", "text_decoder", "visual_encoder_m")
    layers = [layer for name in towers for layer in layers_of(getattr(model, name))]
    layers += layers_of(model.text_encoder_m)
    compiled = compile_towers(model)
    assert set(compiled) == set(layers)
    assert {m for m in model.modules() if m._compiled_call_impl is not None} == set(layers)
    assert list(model.state_dict()) == names


def test_a_tower_or_model_without_layers_is_compiled_whole(quickly: None) -> None:
    model = create_model("blip_retrieval", "tiny")
    model.visual_encoder = nn.Conv2d(3, 4, 2)
    compiled = compile_towers(model)
    assert model.visual_encoder in compiled
    assert set(layers_of(model.text_encoder)) < set(compiled)
    plain = nn.Linear(2, 2)
    assert compile_towers(plain) == [plain]


def test_copies_and_pickles_of_a_compiled_model_are_plain(quickly: None) -> None:
    model = captioner()
    compile_towers(model)
    decoder = pickle.loads(pickle.dumps(model.text_decoder))
    for plain in (copy.deepcopy(model), decoder):
        assert all(part._compiled_call_impl is None for part in plain.modules())
    weights = model.text_decoder.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in decoder.state_dict().items())


# ---- how often


@torch.no_grad()
def test_the_layers_of_a_tower_share_one_code(quickly: None) -> None:
    model = captioner(depth=5)
    compile_towers(model)
    before = num_graphs()
    tokens = torch.randn(2, 7, model.visual_encoder.width)
    session = GroundedDecoder(model.text_decoder, model.text_decoder.bert.project(tokens))
    session.start(torch.ones(2, 4).long(), 3, 10)
    assert num_graphs() - before == 1
    session.step(torch.ones(2, 3).long())
    assert num_graphs() - before == 2


# ---- the same numbers


def test_losses_and_gradients_are_those_of_the_plain_model(quickly: None) -> None:
    assert_the_same_losses(None)


def test_layers_that_forget_their_activations_compile_too(quickly: None) -> None:
    assert_the_same_losses("nothing", num_lengths=1)


@pytest.mark.slow
def test_compiled_code_gives_the_losses_of_the_plain_model(afresh: None) -> None:
    assert_the_same_losses(None, num_lengths=3)


def assert_the_same_losses(keep: Any, num_lengths: int = 6) -> None:
    """Also: after two lengths of texts, others need no other code."""
    plain = pretraining()
    compiled = copy.deepcopy(plain)
    if keep is not None:
        for modality in ("vision", "text"):
            recompute_activations(compiled, modality, -1, keep)
    compile_towers(compiled)
    graphs = []
    for num_words in (5, 8, 4, 6, 9, 11)[:num_lengths]:
        wanted = losses_and_gradients(plain, batch(num_words))
        found = losses_and_gradients(compiled, batch(num_words))
        assert found.keys() == wanted.keys()
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5, msg=name)
        graphs.append(num_graphs())
    assert graphs[0] > 0
    assert graphs[1:] == graphs[1:2] * (num_lengths - 1)


def test_captions_are_those_of_the_plain_model(quickly: None) -> None:
    assert_the_same_captions()


@pytest.mark.slow
def test_compiled_code_writes_the_captions_of_the_plain_model(afresh: None) -> None:
    assert_the_same_captions()


def assert_the_same_captions() -> None:
    """Also: after two lengths of captions, others need no other code."""
    plain = captioner()
    compiled = copy.deepcopy(plain)
    compile_towers(compiled)
    graphs = []
    for method, num_captions in (("beam", 1), ("nucleus", 2)):
        options = {"method": method, "num_beams": 3, "num_captions": num_captions}
        for length in (7, 10, 14, 20):
            written = []
            for model in (plain, compiled):
                torch.manual_seed(0)
                given = {"max_length": length, "min_length": length, **options}
                written.append(model.generate(batch(5), **given))
            assert written[0] == written[1]
            assert len(set(written[0])) > 1
            graphs.append(num_graphs())
    assert graphs[1] == graphs[3]
    assert graphs[5] == graphs[7]


@torch.no_grad()
def test_a_compiled_tower_looks_at_tokens_that_are_not_projected(quickly: None) -> None:
    torch.manual_seed(0)
    plain = create_model("blip_image_text_matching", "tiny", image_size=224).eval()
    compiled = copy.deepcopy(plain)
    compile_towers(compiled)
    image = torch.randn(2, 3, 224, 224)
    tokens = plain.encode_image(image)
    assert isinstance(plain.match_tower.image_context(tokens, 5)[0], AbsorbedProjections)
    texts = ["a red star", "a star"]
    torch.testing.assert_close(compiled.match(tokens, texts), plain.match(tokens, texts))


# ---- what does not go together, and what is missing


def test_packed_weights_and_compiled_layers_exclude_each_other(quickly: None) -> None:
    packed = captioner()
    prepack(packed)
    with pytest.raises(ConfigError, match=r"run\.compile: .*packed weights of `prepack`"):
        LossModule(packed, compile=True)
    compiled = captioner()
    compile_towers(compiled)
    with pytest.raises(ConfigError, match=r"prepack: compiled layers would not use"):
        prepack(compiled)
    with pytest.raises(ConfigError, match=r"^compile: .*choose one"):
        load_model("blip_caption", "tiny", prepack=True, compile=True)
    with pytest.raises(ConfigError, match=r"^compile: .*choose one"):  # nothing would be packed
        load_model("blip_caption", "tiny", dtype="fp16", prepack=True, compile=True)


def test_a_model_can_be_loaded_compiled(quickly: None) -> None:
    torch.manual_seed(0)
    compiled = load_model("blip_caption", "tiny", is_eval=True, compile=True)
    torch.manual_seed(0)
    plain = load_model("blip_caption", "tiny", is_eval=True)
    assert all(layer._compiled_call_impl for layer in layers_of(compiled.text_decoder))
    image = batch(4)["image"]
    with torch.no_grad():
        torch.testing.assert_close(compiled.encode_image(image), plain.encode_image(image))


def test_a_missing_compiler_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler.*use run.compile: false"):
        LossModule(nn.Linear(2, 2), compile=True)
    LossModule(nn.Linear(2, 2), compile=False)
    check_compiler(torch.device("cuda"), "run.compile")


def test_a_compiler_named_in_the_environment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "my-compiler")
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "my-compiler" else None)
    check_compiler(torch.device("cpu"), "run.compile")
