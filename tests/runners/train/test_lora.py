"""LoRA: only adapters are trained, what is saved is the plain model, and resuming is exact."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from toy_runs import build, run, run_in_process, toy_config, weights

from lavis_lite import create_model
from lavis_lite.config.schema import LoraConfig
from lavis_lite.errors import ConfigError
from lavis_lite.models.base import VisionLanguageModel
from lavis_lite.modules.text.load_tokenizer import PACKAGED, load_tokenizer
from lavis_lite.runners.train.lora import Adapters, targets
from lavis_lite.runners.train.runner import TrainRunner

pytest.importorskip("peft")

TEXTS = ["a red square", "a blue cross above a circle"]
SAMPLES: dict[str, Any] = {"image": torch.zeros(2, 3, 64, 64), "text_input": TEXTS}
LORA = LoraConfig(rank=2, target=["inner", "head"])


def blip(**changes: Any) -> Any:
    torch.manual_seed(0)
    return create_model("blip_pretrain", "tiny", **changes).train()


def samples() -> dict[str, Any]:
    torch.manual_seed(1)
    return {**SAMPLES, "image": torch.randn(2, 3, 64, 64), "image_id": torch.tensor([0, 1])}


def train_a_little(model: Any, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        model(samples()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_only_adapters_are_trained_in_the_layers_of_all_towers() -> None:
    model = blip()
    adapters = Adapters(model, LoraConfig(rank=2))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    assert not any("_m." in name for name in trained)
    assert "visual_encoder.blocks.0.attn.qkv" in adapters.names
    assert "text_encoder.encoder.layer.0.crossattention.self.query" in adapters.names
    before = {k: v.clone() for k, v in model.named_parameters() if k not in trained}
    train_a_little(model, 1)
    after = dict(model.named_parameters())
    moved = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert all("_m." in name or name == "temp" for name in moved)  # the copy follows


def test_adapters_change_nothing_until_they_are_trained() -> None:
    plain, adapted = blip().eval(), blip().eval()
    Adapters(adapted, LoraConfig(rank=2))
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(adapted.encode_image(image), plain.encode_image(image))


def test_the_merged_model_is_a_plain_one_that_computes_the_same() -> None:
    model = blip()
    adapters = Adapters(model, LoraConfig(rank=2, train=["itm_head"]))
    train_a_little(model)
    model.eval()
    image = torch.randn(2, 3, 64, 64)
    plain = blip().eval()
    with torch.no_grad():
        expected = model.match(model.encode_image(image), TEXTS)
        inside = model.state_dict()
        with adapters.merged():
            state = {k: v.clone() for k, v in model.state_dict().items()}
        assert list(state) == list(plain.state_dict())
        before = plain.match(plain.encode_image(image), TEXTS)
        plain.load_state_dict(state)
        torch.testing.assert_close(plain.match(plain.encode_image(image), TEXTS), expected)
        assert (before - expected).abs().max() > 1e-3
        again = model.state_dict()
        assert all(torch.equal(inside[name], again[name]) for name in inside)


def test_the_momentum_copy_follows_the_adapters() -> None:
    model = blip(momentum=0.5)
    Adapters(model, LoraConfig(rank=2))
    name = "blocks.0.attn.qkv.lora_B.default.weight"
    train_a_little(model, 2)
    online, copy = (
        dict(tower.named_parameters())[name]
        for tower in (model.visual_encoder, model.visual_encoder_m)
    )
    assert online.abs().sum() > 0
    assert copy.abs().sum() > 0
    assert not copy.requires_grad
    model.reset_momentum()
    assert torch.equal(online, copy)


def test_named_parts_are_trained_whole() -> None:
    model = blip()
    adapters = Adapters(model, LoraConfig(target=["text_encoder.*.query"], train=["*_proj"]))
    assert adapters.names
    assert all(name.endswith(".query") for name in adapters.names)
    trained = {n for n, p in model.named_parameters() if p.requires_grad and ".lora_" not in n}
    assert trained == {"vision_proj.weight", "vision_proj.bias", "text_proj.weight"} | {
        "text_proj.bias"
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoraConfig(target=["visual_encodr"]), r"optim.lora.target\[0\]: no layer is called 'vis"),
        (LoraConfig(train=["itm_haed"]), r"train\[0\]: no part is called.*mean 'itm_head'"),
    ],
)
def test_a_pattern_that_fits_nothing_is_an_error(config: LoraConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Adapters(blip(), config)


def test_a_model_without_towers_needs_names() -> None:
    with pytest.raises(ConfigError, match=r"Sequential has no towers; name what to adapt"):
        targets(torch.nn.Sequential(torch.nn.Linear(2, 2)), [])


# ---- towers of any kind


def gpt2(folder: Path) -> dict[str, Any]:
    """Arguments of a dual encoder whose texts a small GPT-2 reads: its layers are ``Conv1D``."""
    size = {"n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 2, "eos_token_id": 2}
    transformers.GPT2Config(vocab_size=len(load_tokenizer()), **size).save_pretrained(folder)
    return {"text": {"name": f"hf/{folder}"}, "tokenizer": str(PACKAGED), "max_length": 16}


def resnet(folder: Path) -> dict[str, Any]:
    return {"vision": {"name": "timm/test_resnet"}}


def convnext(folder: Path) -> dict[str, Any]:
    return {"vision": {"name": "timm/test_convnext"}}


@pytest.mark.parametrize("arguments", [gpt2, resnet, convnext])
@pytest.mark.filterwarnings("error::UserWarning")
def test_every_tower_gets_adapters_that_can_be_merged(
    arguments: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    model: Any = create_model("clip", "tiny", **arguments(tmp_path)).eval()
    names = list(model.state_dict())
    adapters = Adapters(model, LoraConfig(rank=2))
    assert {n.partition(".")[0] for n in adapters.names} == {"visual_encoder", "text_encoder"}
    with torch.no_grad():
        for parameter in (p for n, p in model.named_parameters() if ".lora_" in n):
            torch.nn.init.normal_(parameter)

        def embeds() -> torch.Tensor:
            image = model.image_embeds(model.encode_image(samples()["image"]))
            return torch.cat([image, model.text_embeds(model.encode_text(TEXTS))])

        adapted = embeds()
        with adapters.merged():
            assert list(model.state_dict()) == names
            torch.testing.assert_close(embeds(), adapted, rtol=0, atol=2e-5)
        with adapters.removed():
            plain = embeds()
    moved = (plain - adapted).abs().amax(dim=1)
    assert moved.min() > 1e-4  # of both towers


def test_convolutions_in_groups_are_left_out_and_named_when_meant() -> None:
    model: Any = create_model("clip", "tiny", vision={"name": "timm/test_convnext"})
    chosen = targets(model, ["visual_encoder"])
    assert "visual_encoder.stem.0" in chosen
    assert not any(name.endswith(".conv_dw") for name in chosen)
    match = r"target\[0\]: visual_encoder.* is a convolution in 24 groups.*train it whole"
    with pytest.raises(ConfigError, match=match):
        targets(model, ["visual_encoder.*.conv_dw"])


def test_a_tower_that_would_be_frozen_without_a_word_is_named() -> None:
    model: Any = create_model("clip", "tiny")
    model.visual_encoder = torch.nn.Conv2d(3, 64, 16, 16)
    match = r"optim.lora: visual_encoder \(Conv2d\) has no .* would be frozen; name all"
    with pytest.raises(ConfigError, match=match):
        targets(model, [])
    assert targets(model, ["visual_encoder"]) == ["visual_encoder"]


def test_a_layer_that_is_not_called_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Sly(VisionLanguageModel):
        vision_towers = ("tower",)

        def __init__(self) -> None:
            super().__init__()
            self.tower = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))

    model = Sly()
    adapters = Adapters(model, LoraConfig(target=["tower"]))
    linear = model.tower[0]
    torch.nn.functional.linear(model.tower[1](torch.ones(1, 2)), linear.weight).sum().backward()
    adapters.look_after_backward()
    assert "1 adapters take no part" in caplog.text
    assert "tower.0" in caplog.text


# ---- a run


def test_checkpoints_are_those_of_the_plain_model(tmp_path: Path) -> None:
    run(toy_config(tmp_path / "lora", optim__lora=LORA))
    run(toy_config(tmp_path / "plain"))
    lora, plain = weights(tmp_path / "lora"), weights(tmp_path / "plain")
    assert {k: v.shape for k, v in lora.items()} == {k: v.shape for k, v in plain.items()}
    frozen = ("norm.weight", "norm.bias", "inner.bias", "head.bias")
    fresh = build(toy_config(tmp_path / "start", run__max_steps=0)).model.state_dict()
    assert all(torch.equal(lora[name], fresh[name]) for name in frozen)
    assert not torch.equal(lora["inner.weight"], fresh["inner.weight"])
    update = lora["inner.weight"] - fresh["inner.weight"]
    assert torch.linalg.matrix_rank(update, atol=1e-5) <= 2
    state = torch.load(tmp_path / "lora/checkpoints/step-00000012/state.pt", weights_only=True)
    assert set(state["adapters"]) == {"inner", "head", "head_m"}
    assert len(state["optimizer"]["state"]) == 4


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    run(toy_config(tmp_path / "straight", optim__lora=LORA))
    assert run_in_process(toy_config(tmp_path / "killed", optim__lora=LORA), "kill:6")
    run(toy_config(tmp_path / "killed", optim__lora=LORA))
    straight, killed = weights(tmp_path / "straight"), weights(tmp_path / "killed")
    assert all(torch.equal(straight[name], killed[name]) for name in straight)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="adapters have no moving average"):
        TrainRunner(toy_config(tmp_path, optim__lora=LORA, optim__ema_decay=0.9))
    with pytest.raises(ConfigError, match=r"optim\.lora\.dropout: below 1, not 1\.0"):
        TrainRunner(toy_config(tmp_path, optim__lora=LoraConfig(dropout=1.0)))


@pytest.mark.fault(52)
def test_without_peft_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'lavis_lite\[peft\]'"):
        Adapters(blip(), LoraConfig())
