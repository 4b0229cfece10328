"""Text encoders of transformers behind the wildcard hf/*."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, T5Config, T5Model

from lavis_lite import create_model, registry
from lavis_lite.errors import ConfigError, DownloadError

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    config = BertConfig(vocab_size=50, intermediate_size=32, **SIZE)
    BertModel(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_folder_gives_the_states_of_its_model(bert: Path) -> None:
    encoder = registry.build("text_backbone", {"name": f"hf/{bert}"}, vocab_size=50).eval()
    ids = torch.randint(5, 50, (2, 7))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    expected = BertModel.from_pretrained(bert).eval()(ids, mask).last_hidden_state
    torch.testing.assert_close(encoder(ids, mask), expected, atol=1e-6, rtol=0)
    assert encoder.width == 16


def test_without_weights_the_config_gives_the_shape(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    encoder = registry.build("text_backbone", {"name": f"hf/{bert}", "pretrained": False})
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
    with pytest.raises(DownloadError, match=r"hf/nobody/nothing.*A folder works too"):
        registry.build("text_backbone", {"name": "hf/nobody/nothing"})


def test_blip_says_that_it_needs_cross_attention(tmp_path: Path) -> None:
    BertConfig(vocab_size=2000, intermediate_size=32, **SIZE).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="cross-attention"):
        create_model("blip_caption", "tiny", text={"name": f"hf/{tmp_path}", "pretrained": False})
