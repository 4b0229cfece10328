"""``lavis-lite vocabulary``: a WordPiece vocabulary trained on the texts that a model will read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lavis_lite.data.files.annotations import captions_of
from lavis_lite.data.files.bad_rows import BadRow
from lavis_lite.data.files.encodings import open_text
from lavis_lite.data.files.tables import find, read
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.modules.text.coverage import coverage
from lavis_lite.modules.text.load_tokenizer import load_tokenizer

_KINDS = {".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
_COMPRESSED = (".gz", ".bz2", ".xz")
FEWEST = 100  # the special tokens, the letters twice (alone and inside a word), and some words
_PARTS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def vocabulary(
    sources: Sequence[str],
    target: str | Path,
    *,
    size: int = 4000,
    min_count: int = 2,
    lowercase: bool = True,
    column: str | None = None,
    split: str | None = None,
) -> str:
    """Train a vocabulary and write it as ``vocab.txt``, with its ``tokenizer_config.json`` beside.

    The folder is what a model's ``tokenizer:`` takes. Equal texts give equal files.

    Args:
        sources: text files, one text per line, and annotation files (json, jsonl, csv, tsv,
            parquet) whose captions are read.
        target: the folder to write; must not hold a vocabulary.
        size: most tokens, the five special ones included; [DEC] and [ENC] come on top.
        min_count: how often a piece must occur to be joined.
        lowercase: lower the case and strip accents, as BERT's uncased vocabulary does.
        column: of the texts in annotation files; by default the one that datasets would read.
        split: only rows of annotation files whose ``split`` has this value.

    Returns:
        What was done, for people.

    Raises:
        ConfigError: a size too small, or a target that holds a vocabulary.
        DataError: files that are missing, or no text in them.
    """
    if size < FEWEST:
        raise ConfigError(f"--size: {size}; at least {FEWEST} tokens")
    folder = Path(target)
    if (folder / "vocab.txt").exists():
        raise ConfigError(f"{folder}/vocab.txt: is there already; name another folder")
    texts = list(_texts(sources, column, split))
    if not texts:
        raise DataError(f"{', '.join(sources)}: no text to train a vocabulary on")
    tokens = train(texts, size, min_count, lowercase)
    write(tokens, folder, lowercase)
    known = coverage(load_tokenizer(folder), texts)
    return (
        f"wrote {folder}/vocab.txt: {len(tokens)} tokens from {len(texts)} texts; "
        f"{known.share:.2%} of their {known.words} words are unknown to it\n"
        f"use it as `model.tokenizer={folder}` in a config"
    )


def train(texts: Sequence[str], size: int, min_count: int, lowercase: bool) -> list[str]:
    """Train WordPiece on texts; returns the tokens by id, the special ones first.

    The trainer numbers single letters as it happens to meet them, and of pieces of equal count it
    joins the one of lower numbers. Letters that it is given beforehand make it repeatable.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    anywhere: Counter[str] = Counter()
    inner: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            anywhere.update(word)
            inner.update(word[1:])
    letters = _commonest(anywhere, min(1000, size // 4))
    letters += [f"##{letter}" for letter in letters if letter in inner]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_count,
        special_tokens=[*_PARTS, *letters],
        limit_alphabet=0,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return [*_PARTS, *sorted(set(tokenizer.get_vocab()) - set(_PARTS))]


def _commonest(letters: Counter[str], most: int) -> list[str]:
    """Return the most frequent letters, of equally frequent ones the first of the alphabet."""
    return sorted(letters, key=lambda letter: (-letters[letter], letter))[:most]


def write(tokens: Sequence[str], folder: Path, lowercase: bool) -> None:
    """Write ``vocab.txt`` and the settings that tell how it was cased."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"do_lower_case": lowercase, "tokenizer_class": "BertTokenizer"}
    settings = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")


def _texts(sources: Sequence[str], column: str | None, split: str | None) -> Iterator[str]:
    for source in sources:
        for text in _texts_of(source, column, split):
            if text.strip():
                yield text


def _texts_of(source: str, column: str | None, split: str | None) -> Iterator[str]:
    suffixes = [suffix for suffix in Path(source).suffixes if suffix not in _COMPRESSED]
    kind = _KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        for file in find(source):
            with open_text(file) as lines:
                yield from (line.rstrip("\r\n") for line in lines)
        return
    for row in read(source, kind):
        if isinstance(row, BadRow) or (split and str(row.get("split")) != split):
            continue
        yield from captions_of(row, source, column)
