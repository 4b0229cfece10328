"""Any text tower in a dual encoder, a MED from BERT's kin in BLIP, weights by one flag, LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModel, PreTrainedTokenizerFast

from lavis_lite import config, create_model

SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
MLP = {"intermediate_size": 32}
CLASSES = {"bos_token_id": 0, "cls_token_id": 0, "eos_token_id": 2, "sep_token_id": 2}
DISTILBERT = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 2, "eos_token_id": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", {**SIZE, **MLP}),
    "roberta": ("RobertaConfig", {**SIZE, **MLP}),
    "distilbert": ("DistilBertConfig", DISTILBERT),
    "modernbert": ("ModernBertConfig", {**SIZE, **MLP, **CLASSES, "pad_token_id": 1}),
    "t5": ("T5Config", T5),
    "gpt2": ("GPT2Config", GPT2),
}
TEXTS = ["a red square above a blue cross", "two green circles"]
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
NAMES |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}


def write_tokenizer(folder: Path) -> int:
    """A small byte-level tokenizer with RoBERTa's special tokens; returns its size."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(TEXTS, trainer)
    trained.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    PreTrainedTokenizerFast(tokenizer_object=trained, **NAMES).save_pretrained(folder)
    return trained.get_vocab_size()


@pytest.fixture(params=FAMILIES)
def tower(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a small random text model of transformers and its tokenizer."""
    name, arguments = FAMILIES[request.param]
    settings = getattr(transformers, name)(vocab_size=write_tokenizer(tmp_path), **arguments)
    AutoModel.from_config(settings).save_pretrained(tmp_path)
    return tmp_path


def test_any_text_tower_of_transformers_trains_in_a_dual_encoder(tower: Path) -> None:
    text = {"name": f"hf/{tower}", "pretrained": True}
    model: Any = create_model("clip", "tiny", text=text, tokenizer=None, max_length=16).train()
    samples = {"image": torch.randn(2, 3, 64, 64), "text_input": TEXTS}
    model(samples).loss.backward()
    reached = [p for p in model.text_encoder.parameters() if p.grad is not None]
    assert any(p.grad.abs().sum() > 0 for p in reached)
    model.eval()
    with torch.no_grad():
        both, alone = (model.text_embeds(model.encode_text(texts)) for texts in (TEXTS, TEXTS[1:]))
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-5)  # whatever it is padded with


def test_one_flag_takes_the_weights_of_transformers(tower: Path) -> None:
    changes = {"tokenizer": None, "max_length": 16}
    text = {"name": f"hf/{tower}"}
    fresh: Any = create_model("clip", "tiny", text=text, **changes)
    model: Any = create_model("clip", "tiny", text={**text, "pretrained": True}, **changes)
    whole = AutoModel.from_pretrained(tower)
    saved = (whole.get_encoder() if whole.config.is_encoder_decoder else whole).state_dict()
    own = model.text_encoder.model.state_dict()
    key = next(key for key, value in own.items() if value.ndim == 2)
    assert torch.equal(own[key], saved[key])
    assert not torch.equal(fresh.text_encoder.model.state_dict()[key], saved[key])


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_blip_starts_from_berts_kin_and_speaks_their_tokens(name: str, tmp_path: Path) -> None:
    kind, arguments = FAMILIES[name]
    size = write_tokenizer(tmp_path)
    settings = getattr(transformers, kind)(vocab_size=size, layer_norm_eps=1e-5, **arguments)
    AutoModel.from_config(settings).save_pretrained(tmp_path)
    text = {"name": "med", "width": 16, "depth": 1, "num_heads": 2, "mlp_width": 32}
    text |= {"max_length": 40, "layer_norm_eps": 1e-5, "pretrained": str(tmp_path)}
    model: Any = create_model("blip_pretrain", "tiny", text=text, tokenizer=f"hf/{tmp_path}")
    samples = {"image": torch.randn(2, 3, 64, 64), "text_input": TEXTS}
    model({**samples, "image_id": torch.tensor([0, 1])}).loss.backward()
    assert model.text_encoder.embeddings.word_embeddings.weight.shape == (size + 2, 16)
    model.eval()
    bert = AutoModel.from_pretrained(tmp_path).eval()
    batch = model.tokenize(TEXTS[:1])
    with torch.no_grad():
        ours, theirs = model.encode_text(batch), bert(batch.ids).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    written = model.generate({"image": samples["image"]}, max_length=12)
    assert [type(text) for text in written] == [str, str]


def test_freezing_and_lora_are_config_switches(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "runner: {name: train}\nmodel: {name: blip_pretrain, type: tiny}\n"
        "data: {train: [{name: scenes}]}\nrun: {output_dir: out}\n"
        "optim: {freeze: [visual_encoder], lora: {rank: 4, target: [text_encoder]}}\n"
    )
    loaded = config.load_and_bind(path)
    assert loaded.optim.freeze == ["visual_encoder"]
    assert (loaded.optim.lora.rank, loaded.optim.lora.alpha) == (4, 16.0)
    assert config.load_and_bind(path, ["optim.lora=null"]).optim.lora is None
