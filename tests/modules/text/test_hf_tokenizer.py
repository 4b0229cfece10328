"""Tokenizers of transformers in our place: same ids, ends, padding, and BLIP's two tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lavis_lite.errors import ConfigError, DownloadError
from lavis_lite.modules.text.hf_tokenizer import HfTokenizer
from lavis_lite.modules.text.load_tokenizer import load_tokenizer, tokenizer_for
from lavis_lite.modules.text.wordpiece import WordPiece

TEXTS = ["a red square above a blue cross", "two green circles", "a cat"]
ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
           "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}  # fmt: skip


def byte_pairs(folder: Path, specials: dict[str, str], wrapped: bool) -> Path:
    """A small byte-level BPE as RoBERTa's (``wrapped``) or GPT's, saved by transformers."""
    tokens = list(dict.fromkeys(specials.values()))
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=tokens, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(TEXTS, trainer)
    if wrapped:
        ends = [(token, trained.token_to_id(token)) for token in ("</s>", "<s>")]
        trained.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=trained, **specials).save_pretrained(folder)
    return folder


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    return byte_pairs(tmp_path / "roberta", ROBERTA, wrapped=True)


@pytest.fixture
def gpt(tmp_path: Path) -> Path:
    return byte_pairs(tmp_path / "gpt", {"eos_token": "<|endoftext|>"}, wrapped=False)


def test_ids_are_those_of_transformers(roberta: Path) -> None:
    batch = HfTokenizer(str(roberta)).encode(TEXTS, 20)
    expected = AutoTokenizer.from_pretrained(roberta)(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(batch.ids, expected["input_ids"])
    assert torch.equal(batch.mask, expected["attention_mask"])


def test_a_cut_text_keeps_its_end(roberta: Path, gpt: Path) -> None:
    for folder in (roberta, gpt):
        tokenizer = HfTokenizer(str(folder))
        batch = tokenizer.encode(TEXTS, 4)
        assert batch.ids.shape == (3, 4)
        assert batch.ids[0, -1] == tokenizer.sep_id
    assert HfTokenizer(str(roberta)).encode(TEXTS, 20, pad_to_max=True).ids.shape == (3, 20)
    with pytest.raises(ConfigError, match="max_length: 1; at least 2"):
        HfTokenizer(str(gpt)).encode(["a"], 1)


def test_texts_end_also_where_the_tokenizer_adds_no_end(gpt: Path) -> None:
    tokenizer = HfTokenizer(str(gpt))
    batch = tokenizer.encode(["a cat", ""], 20)
    lengths = batch.mask.sum(1)
    assert [row[n - 1].item() for row, n in zip(batch.ids, lengths, strict=True)] == [0, 0]
    assert lengths[1] == 1
    assert tokenizer.pad_id == tokenizer.sep_id == 0


def test_what_a_text_says_is_no_control_token(roberta: Path) -> None:
    tokenizer = HfTokenizer(str(roberta))
    row = tokenizer.encode(["a </s> cat"], 40).ids[0].tolist()
    assert row.count(tokenizer.sep_id) == 1
    assert tokenizer.decode(row) == "a </s> cat"


def test_blips_tokens_come_last_and_are_not_decoded(roberta: Path) -> None:
    plain, tokenizer = HfTokenizer(str(roberta)), load_tokenizer(f"hf/{roberta}")
    assert len(tokenizer) == len(plain) + 2
    assert (tokenizer.bos_id, tokenizer.enc_id) == (len(plain), len(plain) + 1)
    assert tokenizer.vocab["[DEC]"] == tokenizer.bos_id
    row = [tokenizer.bos_id, *tokenizer.encode(["a cat"], 20).ids[0].tolist()]
    assert tokenizer.decode(row) == "a cat"
    with pytest.raises(IndexError, match="no token 999 in a vocabulary"):
        tokenizer.decode([999])


def test_an_hf_tower_brings_its_own_tokenizer(roberta: Path, gpt: Path) -> None:
    text = {"name": f"hf/{roberta}"}
    assert tokenizer_for(text, None).vocab == HfTokenizer(str(roberta)).vocab
    assert tokenizer_for(text, f"hf/{gpt}").vocab == HfTokenizer(str(gpt)).vocab
    assert isinstance(tokenizer_for({"name": "med"}, None), WordPiece)


@pytest.mark.parametrize(("offline", "error"), [("", ConfigError), ("1", DownloadError)])
def test_no_tokenizer_there(
    offline: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if offline:
        monkeypatch.setenv("LAVIS_LITE_OFFLINE", offline)
    with pytest.raises((error, ConfigError), match=f"tokenizer: hf/{tmp_path}"):
        HfTokenizer(str(tmp_path))


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    folder: Any = byte_pairs(tmp_path / "endless", {"unk_token": "<unk>"}, wrapped=False)
    with pytest.raises(ConfigError, match=r"has no end token \(\[SEP\] or </s>\)"):
        HfTokenizer(str(folder))
