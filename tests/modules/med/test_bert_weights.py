"""Starting from BERT: the same states as transformers' BertModel, whatever the file's dialect."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lavis_lite import registry
from lavis_lite.errors import CheckpointError, ConfigError, DownloadError
from lavis_lite.modules.med.bert_weights import load_bert
from lavis_lite.modules.med.model import Med, MedDecoder

WORDS, WIDTH = 40, 16
GAMMA_BETA = {"weight": "gamma", "bias": "beta"}


@pytest.fixture
def bert(tmp_path: Path) -> Any:
    """transformers' BertForMaskedLM with weights that all matter."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=20,
    )  # fmt: skip
    model = BertForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def tower(**changes: Any) -> Med:
    arguments = {
        "width": WIDTH, "depth": 2, "num_heads": 2, "mlp_width": 24, "vocab_size": WORDS + 2,
        "encoder_width": 12, "max_length": 20,
    }  # fmt: skip
    return Med(**{**arguments, **changes}).eval()


def old_spelling(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The keys as BERT's first files have them."""
    renamed = {
        re.sub(r"(?<=LayerNorm\.)(weight|bias)$", lambda m: GAMMA_BETA[m[0]], key): tensor
        for key, tensor in state.items()
    }
    return renamed | {"bert.embeddings.position_ids": torch.arange(20)[None]}


def write(kind: str, model: Any, folder: Path) -> Path:
    """A checkpoint of the model in one of the dialects that are about."""
    folder.mkdir(exist_ok=True)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    if kind == "saved by transformers":
        model.save_pretrained(folder)
    elif kind == "bin, old spelling":
        torch.save(old_spelling(state), folder / "pytorch_model.bin")
    elif kind == "no prefix":
        bare = {k.removeprefix("bert."): v for k, v in state.items() if k.startswith("bert.")}
        save_file(bare, folder / "model.safetensors")
    elif kind == "half precision":
        save_file({k: v.half() for k, v in state.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        ("saved by transformers", 1e-5),
        ("bin, old spelling", 1e-5),
        ("no prefix", 1e-5),
        ("half precision", 1e-2),
    ],
)
def test_states_equal_those_of_berts_with_token_type_0(
    bert: Any, tmp_path: Path, kind: str, tolerance: float
) -> None:
    med = tower()
    load_bert(med, write(kind, bert, tmp_path / "bert"))
    ids = torch.randint(0, WORDS, (3, 9))
    mask = (torch.arange(9) < torch.tensor([9, 4, 6])[:, None]).long()
    with torch.no_grad():
        theirs = bert.bert(ids, attention_mask=mask).last_hidden_state
        ours = med(ids, mask, mode="text")
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], rtol=0, atol=tolerance)
    assert bert.bert.embeddings.token_type_embeddings.weight[0].abs().max() > 0.1


def test_the_head_gives_berts_logits(bert: Any, tmp_path: Path) -> None:
    decoder = MedDecoder(tower()).eval()
    load_bert(decoder, write("saved by transformers", bert, tmp_path / "bert"))
    states = torch.randn(2, 5, WIDTH)
    with torch.no_grad():
        ours, theirs = decoder.cls(states), bert.cls(states)
    torch.testing.assert_close(ours[..., :WORDS], theirs, rtol=0, atol=1e-5)
    assert (decoder.cls.predictions.bias[WORDS:] == 0).all()
    assert decoder.cls.predictions.decoder.weight is decoder.bert.embeddings.word_embeddings.weight


def test_new_words_are_drawn_and_cross_attention_stays(bert: Any, tmp_path: Path) -> None:
    med = tower()
    before = {k: v.clone() for k, v in med.state_dict().items() if "crossattention" in k}
    load_bert(med, write("saved by transformers", bert, tmp_path / "bert"))
    words = med.embeddings.word_embeddings.weight
    assert torch.equal(words[:WORDS], bert.bert.embeddings.word_embeddings.weight)
    assert 0.01 < words[WORDS:].std().item() < 0.03
    assert before
    assert all(torch.equal(med.state_dict()[k], v) for k, v in before.items())


def test_fewer_positions_take_the_first_ones(bert: Any, tmp_path: Path) -> None:
    med = tower(max_length=8)
    load_bert(med, write("saved by transformers", bert, tmp_path / "bert"))
    ids = torch.randint(0, WORDS, (2, 8))
    with torch.no_grad():
        torch.testing.assert_close(
            med(ids, mode="text"), bert.bert(ids).last_hidden_state, rtol=0, atol=1e-5
        )


def test_the_builder_loads_what_pretrained_names(bert: Any, tmp_path: Path) -> None:
    folder = write("no prefix", bert, tmp_path / "bert")
    spec = {"name": "med", "width": WIDTH, "depth": 2, "num_heads": 2, "mlp_width": 24}
    med = registry.build(
        "text_backbone",
        {**spec, "max_length": 20, "pretrained": str(folder)},
        vocab_size=WORDS + 2,
        encoder_width=12,
    )
    expected = bert.bert.encoder.layer[1].output.dense.weight
    assert torch.equal(med.encoder.layer[1].output.dense.weight, expected)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab_size": WORDS - 1}, "it has 40 words, the tokenizer 39"),
        ({"max_length": 21}, "it has 20 positions; max_length is 21"),
        ({"depth": 1}, "encoder.layer.1."),
        ({"depth": 3}, "encoder.layer.2."),
        ({"mlp_width": 32}, "intermediate.dense.weight"),
        ({"width": 8}, "word_embeddings.weight"),
    ],
)
def test_a_checkpoint_of_another_size_is_refused(
    bert: Any, tmp_path: Path, changes: dict, says: str
) -> None:
    folder = write("saved by transformers", bert, tmp_path / "bert")
    with pytest.raises(CheckpointError, match=says) as caught:
        load_bert(tower(**changes), folder)
    assert str(folder) in str(caught.value)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"visual.proj": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"not a BERT: .* but visual\.proj"):
        load_bert(tower(), tmp_path)


@pytest.mark.usefixtures("hub_answers")
def test_nothing_there_says_what_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"/no/such/bert does not exist; expected .*safetensors"):
        load_bert(tower(), "/no/such/bert")

    import huggingface_hub

    def offline(repo: str, name: str, local_files_only: bool) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(DownloadError, match=r"'someone/some-bert' .*path of the folder"):
        load_bert(tower(), "someone/some-bert")


# ---- RoBERTa: positions from 2, one token type, a head under other names, another epsilon


@pytest.fixture
def roberta(tmp_path: Path) -> Any:
    """transformers' RobertaForMaskedLM with weights that all matter, and its folder."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(
        vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=22, type_vocab_size=1, layer_norm_eps=1e-5,
    )  # fmt: skip
    model = RobertaForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "roberta")
    return model


@pytest.mark.parametrize("prefix", ["roberta.", ""])
def test_states_equal_those_of_roberta(roberta: Any, tmp_path: Path, prefix: str) -> None:
    if not prefix:
        roberta.roberta.save_pretrained(tmp_path / "roberta")
    med = tower(layer_norm_eps=1e-5)
    load_bert(med, tmp_path / "roberta")
    ids = torch.randint(3, WORDS, (3, 20))
    with torch.no_grad():
        theirs = roberta.roberta(ids).last_hidden_state
        torch.testing.assert_close(med(ids), theirs, rtol=0, atol=1e-5)


def test_the_head_gives_robertas_logits(roberta: Any, tmp_path: Path) -> None:
    decoder = MedDecoder(tower(layer_norm_eps=1e-5)).eval()
    load_bert(decoder, tmp_path / "roberta")
    states = torch.randn(2, 5, WIDTH)
    with torch.no_grad():
        ours, theirs = decoder.cls(states), roberta.lm_head(states)
    torch.testing.assert_close(ours[..., :WORDS], theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {},
            r"its layer_norm_eps is 1e-05, the tower's 1e-12: set model.text.layer_norm_eps=1e-05",
        ),
        (
            {"layer_norm_eps": 1e-5, "num_heads": 4},
            "its num_attention_heads is 2, the tower's 4: set model.text.num_heads=2",
        ),
        (
            {"layer_norm_eps": 1e-5, "max_length": 21},
            "it has 20 positions; max_length is 21: set model.text.max_length=20",
        ),
        (
            {"layer_norm_eps": 1e-5, "vocab_size": WORDS + 3},
            f"it has {WORDS} words, the tokenizer {WORDS + 3}, of which only",
        ),
    ],
)
def test_a_tower_that_would_compute_other_numbers_is_refused(
    roberta: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_bert(tower(**changes), tmp_path / "roberta")
