"""Text encoders of transformers behind the wildcard hf/*."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import BertConfig, BertModel, T5Config, T5Model

from lavis_lite import create_model, registry
from lavis_lite.errors import ConfigError, DownloadError
from lavis_lite.modules.text.hf_tokenizer import HfTokenizer
from lavis_lite.modules.text.pooling import pool

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    config = BertConfig(vocab_size=50, intermediate_size=32, **SIZE)
    BertModel(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_folder_gives_the_states_of_its_model(bert: Path) -> None:
    spec = {"name": f"hf/{bert}", "pretrained": True}
    encoder = registry.build("text_backbone", spec, vocab_size=50).eval()
    ids = torch.randint(5, 50, (2, 7))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    expected = BertModel.from_pretrained(bert).eval()(ids, mask).last_hidden_state
    torch.testing.assert_close(encoder(ids, mask), expected, atol=1e-6, rtol=0)
    assert encoder.width == 16


def test_without_weights_the_config_gives_the_shape(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    encoder = registry.build("text_backbone", {"name": f"hf/{bert}"})
    assert encoder(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, 16)


def test_of_an_encoder_decoder_the_encoder_is_taken(tmp_path: Path) -> None:
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(tmp_path)
    encoder = registry.build("text_backbone", {"name": f"hf/{tmp_path}"})
    assert encoder(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, 16)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(bert: Path) -> None:
    with pytest.raises(ConfigError, match="knows 50 tokens, the tokenizer 60"):
        registry.build("text_backbone", {"name": f"hf/{bert}"}, vocab_size=60)


def test_offline_a_hub_id_says_how_to_give_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIS_LITE_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"hf/nobody/nothing.*give `hf/FOLDER` as name"):
        registry.build("text_backbone", {"name": "hf/nobody/nothing"})


def test_a_hub_that_fails_in_between_is_no_fault_of_the_config(
    monkeypatch: pytest.MonkeyPatch, hub_answers: None
) -> None:
    monkeypatch.delenv("LAVIS_LITE_OFFLINE", raising=False)

    def from_pretrained(*args: Any, **kwargs: Any) -> Any:
        try:
            raise LocalEntryNotFoundError("[Errno 111] Connection refused")
        except LocalEntryNotFoundError as error:
            raise OSError("We couldn't connect to the hub.\nCheck your connection") from error

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", from_pretrained)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
    match = r"hf/nobody/nothing: We couldn't connect to the hub. Fetch it elsewhere and give `"
    with pytest.raises(DownloadError, match=match):
        registry.build("text_backbone", {"name": "hf/nobody/nothing"})
    with pytest.raises(DownloadError, match=f"tokenizer: {match}"):
        HfTokenizer("nobody/nothing")


NO_TEXTS = {
    "ViTConfig": {**SIZE, "image_size": 32},
    "Wav2Vec2Config": {**SIZE, "intermediate_size": 32},  # has a vocabulary, and hears
    "CLIPConfig": {"vision_config": {**SIZE, "image_size": 32}, "text_config": dict(SIZE)},
}


@pytest.mark.parametrize("kind", NO_TEXTS)
def test_a_model_that_is_no_encoder_of_texts_is_refused(kind: str, tmp_path: Path) -> None:
    getattr(transformers, kind)(**NO_TEXTS[kind]).save_pretrained(tmp_path)
    spec = {"name": f"hf/{tmp_path}"}
    name = kind.replace("Config", "Model")
    complaint = f"hf/{tmp_path}: a {name} of transformers is not a text encoder; take one such as"
    with torch.device("meta"), pytest.raises(ConfigError, match=complaint):
        registry.build("text_backbone", spec)
    (problem,) = registry.entry("text_backbone", spec["name"]).check(spec, {"max_length": 8})
    assert problem.startswith(complaint)


def test_blip_says_that_it_needs_cross_attention(tmp_path: Path) -> None:
    BertConfig(vocab_size=2000, intermediate_size=32, **SIZE).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="cross-attention"):
        create_model("blip_caption", "tiny", text={"name": f"hf/{tmp_path}"})


# ---- every family in one contract: states, length, which of them speaks for a text

MODERN = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3}
MODERN |= {"sep_token_id": 3}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24}
ENDS = {"bos_token_id": 1, "eos_token_id": 2}

# transformers' configuration, its arguments -> most tokens, pooling
FAMILIES: dict[str, tuple[str, dict[str, Any], int | None, str]] = {
    "bert": ("BertConfig", {**SIZE, "max_position_embeddings": 24}, 24, "first"),
    "roberta": ("RobertaConfig", {**SIZE, "max_position_embeddings": 24}, 22, "first"),
    "distilbert": (
        "DistilBertConfig",
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 24},
        24,
        "first",
    ),
    "modernbert": ("ModernBertConfig", {**SIZE, **MODERN, "intermediate_size": 32}, 8192, "first"),
    "t5": ("T5Config", T5, None, "mean"),
    "gpt2": ("GPT2Config", {**GPT2, **ENDS}, 24, "last"),
    "llama": ("LlamaConfig", {**SIZE, "intermediate_size": 32}, 2048, "last"),
    "opt": (
        "OPTConfig",
        {**SIZE, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 24},
        24,
        "last",
    ),
    "xlnet": (
        "XLNetConfig",
        {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
        None,
        "first",
    ),
    "clip": ("CLIPTextConfig", {**SIZE, **ENDS, "intermediate_size": 32}, 77, "last"),
}


def saved(family: str, folder: Path) -> Path:
    """A folder with a small random model of a family."""
    name, arguments, *_ = FAMILIES[family]
    config = getattr(transformers, name)(vocab_size=50, **arguments)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_keeps_the_contract_of_text_backbones(family: str, tmp_path: Path) -> None:
    *_, max_length, pooling = FAMILIES[family]
    spec = {"name": f"hf/{saved(family, tmp_path)}", "pretrained": True}
    backbone = registry.build("text_backbone", spec, vocab_size=50).eval()
    assert (backbone.width, backbone.max_length, backbone.pooling) == (16, max_length, pooling)
    ids = torch.randint(5, 50, (2, 7))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    states = backbone(ids, mask)
    assert states.shape == (2, 7, 16)
    pooled = pool(backbone, states, mask)
    assert pooled.shape == (2, 16)
    pooled.square().sum().backward()
    first = next(p for p in backbone.parameters() if p.ndim == 2)
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_does_not_change_what_speaks_for_a_text(family: str, tmp_path: Path) -> None:
    spec = {"name": f"hf/{saved(family, tmp_path)}", "pretrained": True}
    backbone = registry.build("text_backbone", spec).eval()
    ids = torch.randint(5, 50, (1, 4))
    padded = torch.cat([ids, torch.randint(5, 50, (1, 3))], dim=1)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    with torch.no_grad():
        alone = pool(backbone, backbone(ids), None)
        among = pool(backbone, backbone(padded, mask), mask)
    torch.testing.assert_close(among, alone, atol=1e-5, rtol=0)


def test_pooling_can_be_chosen(bert: Path) -> None:
    spec = {"name": f"hf/{bert}", "pooling": "mean"}
    backbone = registry.build("text_backbone", spec).eval()
    states, mask = torch.randn(2, 3, 16), torch.tensor([[1, 1, 1], [1, 0, 0]])
    pooled = backbone.pool(states, mask)
    torch.testing.assert_close(pooled, torch.stack([states[0].mean(0), states[1, 0]]))


def test_a_backbone_that_does_not_pool_is_read_at_its_first_token() -> None:
    states = torch.randn(2, 3, 4)
    assert torch.equal(pool(torch.nn.Identity(), states), states[:, 0])


def test_without_storage_a_causal_model_is_taken_at_its_word(tmp_path: Path) -> None:
    folder = saved("gpt2", tmp_path)
    with torch.device("meta"):
        assert registry.build("text_backbone", {"name": f"hf/{folder}"}).pooling == "last"
