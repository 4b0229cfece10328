"""The tokenizer: BERT's ids, the two added tokens, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import random
import string
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_lite.errors import ConfigError, DownloadError
from lavis_lite.modules.text.load_tokenizer import PACKAGED, load_tokenizer
from lavis_lite.modules.text.text_batch import SPECIAL
from lavis_lite.modules.text.wordpiece import WordPiece

TEXTS = [
    "a picture of a small red circle to the left of a big blue square",
    "A Woman, RIDING a horse -- on the beach!",
    "don't stop; it's 5.5kg (approx.) @ $3.99/lb #sale",
    "café naïve Ångström ÀÉÎÕÜ ñandú",
    "IMG_2041.jpg buy online\tfree\nshipping\r\n",
    "unbelievably photographed zyzzyva",
    "你好 world 東京",
    "emoji 😀 and zero​width \x00 control \x7f",
    "x" * 101,
    "x" * 100,
    "   ",
    "",
    "a" * 30 + " " + "\u00a0b" + "\u2019",
]

tokenizer = load_tokenizer()


def reference(folder: Path) -> object:
    """transformers' BertTokenizer on a folder with a vocab.txt."""
    from transformers import BertTokenizer

    return BertTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("max_length", [2, 7, 40])
def test_ids_equal_those_of_transformers(max_length: int) -> None:
    theirs = reference(PACKAGED.parent)(
        TEXTS, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
    )
    ours = tokenizer.encode(TEXTS, max_length)
    assert torch.equal(ours.ids, theirs["input_ids"])
    assert torch.equal(ours.mask, theirs["attention_mask"])


def test_decoded_text_equals_that_of_transformers() -> None:
    bert = reference(PACKAGED.parent)
    rng = random.Random(0)
    for _ in range(50):
        ids = [rng.randrange(tokenizer.bos_id) for _ in range(12)]
        assert tokenizer.decode(ids) == bert.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=True
        )


@pytest.mark.skipif(
    not Path(os.environ.get("LAVIS_LITE_BERT_VOCAB", "/nowhere")).is_dir(),
    reason="LAVIS_LITE_BERT_VOCAB names no folder with bert-base-uncased's vocab.txt",
)
def test_the_real_vocabulary_gives_blips_ids() -> None:
    folder = Path(os.environ["LAVIS_LITE_BERT_VOCAB"])
    ours = load_tokenizer(folder)
    assert len(ours) == 30524
    assert (ours.pad_id, ours.cls_id, ours.sep_id, ours.mask_id) == (0, 101, 102, 103)
    assert (ours.bos_id, ours.enc_id) == (30522, 30523)
    theirs = reference(folder)(TEXTS, padding=True, return_tensors="pt")["input_ids"]
    assert torch.equal(ours.encode(TEXTS, 512).ids, theirs)


def test_the_golden_captions_get_their_recorded_ids(golden: dict) -> None:
    # The words of the recorded captions, at the ids that they have in bert-base-uncased.
    entry = golden["caption"]
    ids = {number: f"[unused{number}]" for number in range(30522)}
    for row, caption in zip(entry["input_ids"], entry["captions"], strict=True):
        words = caption.replace(",", " ,").replace("!", " !").split()
        ids |= dict(zip(row, ["[CLS]", *words, "[SEP]"], strict=True))
    ids |= {0: "[PAD]", 100: "[UNK]", 103: "[MASK]"}
    known = WordPiece({token: id_ for id_, token in ids.items()})
    assert known.encode(entry["captions"], 40).ids.tolist() == entry["input_ids"]
    assert (known.bos_id, known.enc_id) == (30522, 30523)
    assert known.decode(entry["input_ids"][1]) == "a picture of two people, standing near a lake!"


def test_dec_and_enc_are_the_last_two_ids() -> None:
    assert (tokenizer.bos_id, tokenizer.enc_id) == (len(tokenizer) - 2, len(tokenizer) - 1)


def test_the_packaged_vocabulary_begins_as_berts() -> None:
    lines = PACKAGED.read_text(encoding="utf-8").splitlines()
    assert tuple(lines[:5]) == SPECIAL
    assert tokenizer.pad_id == 0
    assert 900 < len(lines) < 1200


@given(st.text(st.sampled_from(string.printable), max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_ascii_text_holds_an_unknown_piece(text: str) -> None:
    assert tokenizer.unk_id not in tokenizer.encode([text], 256).ids


def test_words_of_the_scenes_are_single_tokens() -> None:
    text = (
        "there is a tiny red circle disc to the left of a huge turquoise square box, with a plus "
        "cross triangle above below over under both against a navy background grey gray violet"
    )
    words = text.replace(",", " ,").split()
    assert tokenizer.encode([text], 99).ids.shape[1] == len(words) + 2


def test_special_tokens_in_a_text_are_plain_characters() -> None:
    ids = tokenizer.encode(["a dog [SEP] [DEC] [PAD]"], 40).ids[0, 1:-1].tolist()
    assert not set(ids) & {tokenizer.sep_id, tokenizer.bos_id, tokenizer.pad_id}


def test_truncation_keeps_the_end_token() -> None:
    batch = tokenizer.encode(["a dog and a cat and a bird"], 5)
    assert batch.ids.shape == (1, 5)
    assert batch.ids[0, -1] == tokenizer.sep_id


def test_padding_is_to_the_longest_unless_the_maximum_is_asked_for() -> None:
    texts = ["a dog", "a dog and a cat"]
    assert tokenizer.encode(texts, 20).ids.shape == (2, 7)
    padded = tokenizer.encode(texts, 20, pad_to_max=True)
    assert padded.ids.shape == (2, 20)
    assert padded.mask.sum(1).tolist() == [4, 7]
    assert (padded.ids[padded.mask == 0] == tokenizer.pad_id).all()


def test_no_texts_make_an_empty_batch() -> None:
    assert tokenizer.encode([], 20).ids.shape == (0, 2)


def test_replacing_the_first_token_leaves_the_given_batch_alone() -> None:
    batch = tokenizer.encode(["a dog"], 20)
    replaced = batch.replace_first(tokenizer.enc_id)
    assert batch.ids[0, 0] == tokenizer.cls_id
    assert replaced.ids[0].tolist() == [tokenizer.enc_id, *batch.ids[0, 1:].tolist()]
    assert replaced.mask is batch.mask


def test_decoding_skips_special_tokens_and_takes_a_tensor() -> None:
    batch = tokenizer.encode(["A dog, standing."], 20, pad_to_max=True)
    assert tokenizer.decode(batch.ids[0]) == "a dog, standing."
    assert tokenizer.decode([batch.ids[0][2]]) == "dog"  # a list of tensors, as LAVIS's users write


def test_decoding_an_id_outside_the_vocabulary_is_an_error() -> None:
    with pytest.raises(IndexError, match=str(len(tokenizer))):
        tokenizer.decode([len(tokenizer)])


def test_a_call_reads_as_with_transformers() -> None:
    assert len(tokenizer("a picture of ").input_ids) == 5
    batch = tokenizer(
        ["a dog", "a"], padding="longest", truncation=True, max_length=9, return_tensors="pt"
    ).to("cpu")
    assert batch.input_ids.shape == batch.attention_mask.shape == (2, 4)
    full = tokenizer("a dog", padding="max_length", max_length=9, return_tensors="pt")
    assert full.attention_mask.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 0]]
    assert tokenizer(["a", "a dog"]).input_ids == [
        tokenizer("a").input_ids,
        tokenizer("a dog").input_ids,
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"return_tensors": "np"}, "return_tensors"),
        ({"return_tensors": "pt"}, "padding=True"),
        ({"padding": "max_length"}, "needs max_length"),
        ({"truncation": True, "max_length": 1}, "max_length: 1"),
    ],
)
def test_a_call_that_cannot_be_served_says_why(arguments: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tokenizer(["a", "a dog"], **arguments)


@pytest.mark.parametrize("max_length", [1, 0, -3])
def test_a_maximum_below_two_is_an_error(max_length: int) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        tokenizer.encode(["a"], max_length)


def test_it_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert torch.equal(copy.encode(TEXTS, 40).ids, tokenizer.encode(TEXTS, 40).ids)


def write(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder


SMALL = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ndog\n##s\nDog\n"


def test_a_file_a_folder_and_a_saved_tokenizer_give_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path, "vocab.txt", SMALL)
    reference(folder).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "vocab.txt").exists()
    for source in (folder, str(folder / "vocab.txt"), tmp_path / "saved"):
        small = load_tokenizer(source)
        assert small.encode(["A dogs cat"], 9).ids.tolist() == [[2, 5, 6, 7, 1, 3]]
        assert (len(small), small.bos_id, small.enc_id) == (11, 9, 10)


def test_tokens_that_a_vocabulary_already_has_keep_their_ids(tmp_path: Path) -> None:
    folder = write(tmp_path, "vocab.txt", SMALL.replace("a\n", "[ENC]\n[DEC]\n", 1))
    small = load_tokenizer(folder)
    assert (len(small), small.enc_id, small.bos_id) == (10, 5, 6)


def test_a_cased_vocabulary_keeps_capitals(tmp_path: Path) -> None:
    folder = write(tmp_path, "vocab.txt", SMALL)
    write(tmp_path, "tokenizer_config.json", json.dumps({"do_lower_case": False}))
    assert load_tokenizer(folder).encode(["Dog"], 9).ids.tolist() == [[2, 8, 3]]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("vocab.txt", "", "empty vocabulary"),
        ("vocab.txt", "\n\n", "empty vocabulary"),
        ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\na\n", r"no \[SEP\], \[MASK\]"),
        ("vocab.txt", SMALL + "dog\n", "twice: .*dog"),
        ("tokenizer.json", "{}", "not a tokenizer.json"),
        ("tokenizer.json", "[1", "not a tokenizer.json"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}}}', "a BPE tokenizer"),
        ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {}}}', "empty vocabulary"),
        ("readme.txt", "", "vocab.txt or tokenizer.json"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_names_its_path(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    write(tmp_path, name, content)
    with pytest.raises(ConfigError, match=says) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_tokenizer(tmp_path)


def test_ids_with_gaps_are_refused() -> None:
    vocab = {token: 2 * index for index, token in enumerate(SPECIAL)}
    with pytest.raises(ConfigError, match="ids must be 0 to 4"):
        WordPiece(vocab)


def test_a_path_that_does_not_exist_says_what_is_expected() -> None:
    with pytest.raises(ConfigError, match=r"/no/such/folder does not exist; expected .*vocab.txt"):
        load_tokenizer("/no/such/folder")


def test_a_hub_id_without_a_network_says_how_to_pass_a_folder(
    monkeypatch: pytest.MonkeyPatch, hub_answers: None
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(repo: str, name: str, local_files_only: bool) -> str:
        raise LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(DownloadError, match=r"no connection.*path of the folder") as caught:
        load_tokenizer("someone/some-bert")
    assert "'someone/some-bert'" in str(caught.value)


def test_a_hub_id_uses_the_first_file_that_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    reference(write(tmp_path, "vocab.txt", SMALL)).save_pretrained(tmp_path / "hub")

    def download(repo: str, name: str, local_files_only: bool) -> str:
        if name == "vocab.txt":
            raise EntryNotFoundError("404")
        return str(tmp_path / "hub" / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_tokenizer("someone/some-bert").encode(["dog"], 9).ids.tolist() == [[2, 6, 3]]


def test_without_added_tokens_every_text_starts_with_cls() -> None:
    plain, ours = load_tokenizer(added=()), load_tokenizer()
    assert len(plain) == len(ours) - 2
    assert plain.bos_id == plain.enc_id == plain.cls_id
    assert not {"[DEC]", "[ENC]"} & set(plain.vocab)
    texts = ["a red square", "nothing"]
    assert plain.encode(texts, 10).ids.equal(ours.encode(texts, 10).ids)
