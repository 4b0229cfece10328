"""`lavis-lite vocabulary`: equal texts give an equal vocabulary, which models read."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lavis_lite import cli, load_model
from lavis_lite.modules.text.coverage import coverage
from lavis_lite.modules.text.hf_tokenizer import HfTokenizer
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.runners.train.vocabulary import tell_unknown_words

Command = Callable[..., tuple[int, str]]
TEXTS = ["a brown dog runs", "A brown cat runs, too.", "two dogs and a café"] * 3


@pytest.fixture
def vocabulary(capsys: pytest.CaptureFixture[str]) -> Command:
    """``vocabulary(*words)`` -> exit code, and stdout or, in case of an error, stderr."""

    def command(*words: object) -> tuple[int, str]:
        code = cli.main(["vocabulary", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out if code == 0 else err

    return command


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return tmp_path / "texts.txt"


def test_the_vocabulary_of_a_text_file_covers_its_words(texts, tmp_path, vocabulary):
    code, said = vocabulary(texts, "--out", tmp_path / "v", "--size", "100")
    assert code == 0
    assert "9 texts" in said
    assert "0.00% of their 42 words" in said
    tokenizer = load_tokenizer(tmp_path / "v")
    assert tokenizer.decode(tokenizer("Brown dogs").input_ids) == "brown dogs"
    assert {"brown", "runs"} <= tokenizer.vocab.keys(), "frequent words are one piece"


def test_capitals_are_kept_if_asked_for(texts, tmp_path, vocabulary):
    vocabulary(texts, "--out", tmp_path / "v", "--size", "100", "--cased")
    tokenizer = load_tokenizer(tmp_path / "v")
    assert tokenizer.decode(tokenizer("A café").input_ids) == "A café"


def test_equal_texts_give_equal_files_in_another_process(texts, tmp_path):
    """Many pieces of these texts occur equally often, and the trainer's own ties fall by chance."""
    written = []
    for number in range(3):
        out = tmp_path / f"v{number}"
        command = ["-m", "lavis_lite", "vocabulary", str(texts), "--out", str(out), "--size", "100"]
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        written.append((out / "vocab.txt").read_bytes())
    assert written[0] == written[1] == written[2]


def test_captions_of_annotation_files_are_read(tmp_path, vocabulary):
    rows = [
        {"image": "1.jpg", "captions": TEXTS[:2], "split": "train"},
        {"image": "2.jpg", "captions": ["zebra"], "split": "test"},
    ]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    code, said = vocabulary(
        *(tmp_path / "rows.jsonl", "--split", "train", "--out", tmp_path / "v", "--size", "100")
    )
    assert code == 0
    assert "2 texts" in said
    assert "##z" not in load_tokenizer(tmp_path / "v").vocab


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nowhere.txt", "--out", "v"], "nowhere.txt"),
        (["{texts}", "--out", "v", "--size", "20"], "at least 100"),
        (["{rows}", "--out", "v", "--column", "captoin"], "Did you mean 'caption'"),
        (["{empty}", "--out", "v"], "no text"),
        (["{texts}", "--out", "{there}"], "is there already"),
    ],
)
def test_mistakes_are_explained(words, complaint, texts, tmp_path, monkeypatch, vocabulary):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"image": "1.jpg", "caption": "a dog"}')
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "vocab.txt").write_text("[PAD]")
    names = {
        name: tmp_path / f"{name}{suffix}"
        for name, suffix in [
            ("texts", ".txt"),
            ("rows", ".jsonl"),
            ("empty", ".txt"),
            ("there", ""),
        ]
    }
    code, said = vocabulary(*(word.format(**names) for word in words))
    assert code == 2
    assert complaint in said
    assert not (tmp_path / "v" / "vocab.txt").exists()


def test_a_word_is_unknown_if_a_part_of_it_is(texts, tmp_path, vocabulary):
    vocabulary(texts, "--out", tmp_path / "v", "--size", "100")
    found = coverage(load_tokenizer(tmp_path / "v"), ["a dog", "a zebra zebra quiz"])
    assert found.words == 6
    assert found.unknown == {"zebra": 2, "quiz": 1}
    assert found.share == 0.5


@pytest.mark.parametrize("unknown", ["[UNK]", "</s>"])
def test_a_tokenizer_of_transformers_knows_its_words_or_all(tmp_path: Path, unknown: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0, "</s>": 1, "a": 2, "dog": 3}
    inner = Tokenizer(models.WordLevel(words, unk_token=unknown))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", unk_token=unknown
    ).save_pretrained(tmp_path)
    found = coverage(HfTokenizer(str(tmp_path)), ["a dog", "a zebra"])
    assert found.words == 4
    assert found.unknown == ({"zebra": 1} if unknown == "[UNK]" else {})


class _Rows:
    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def annotation(self, index):
        return {"text_input": self.texts[index]}


def test_training_says_which_words_its_vocabulary_lacks(caplog):
    model = load_model("blip_caption", "tiny")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        tell_unknown_words(model, [_Rows(["a red circle"] * 5)], str)
        assert not caplog.records
        tell_unknown_words(model, [_Rows(["a red circle", "ein roter 圆"])], str)
    assert "16.7 % of the words are unknown" in caplog.text
    assert "'圆'" in caplog.text
    assert "lavis-lite vocabulary" in caplog.text
