"""Tokenizers from files, folders and the hub: a vocabulary, a tokenizer.json, ``hf/<name>``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_lite.errors import ConfigError
from lavis_lite.modules.text.hf_tokenizer import PREFIX, HfTokenizer
from lavis_lite.modules.text.hub_files import locate
from lavis_lite.modules.text.text_batch import ADDED
from lavis_lite.modules.text.wordpiece import WordPiece

PACKAGED = Path(__file__).with_name("vocab.txt")


def load_tokenizer(source: str | Path | None = None, added: Sequence[str] = ADDED) -> WordPiece:
    """Load the tokenizer of a vocabulary.

    Args:
        source: None for the small vocabulary of the package; a ``vocab.txt`` or ``tokenizer.json``;
            a folder with one of them; or a hub id such as ``bert-base-uncased``. After ``hf/``,
            the folder or hub id of a tokenizer of any kind (``hf/roberta-base``).
        added: as of ``WordPiece``.

    Raises:
        ConfigError: nothing there, or not a WordPiece vocabulary.
        DownloadError: a hub id that cannot be fetched.
    """
    if source is None:
        return read_vocab(PACKAGED, added)
    if str(source).startswith("hf/"):
        return HfTokenizer(str(source).removeprefix("hf/"), added)  # type: ignore[return-value]
    path = locate(source, ("vocab.txt", "tokenizer.json"), "tokenizer")
    return read_json(path, added) if path.suffix == ".json" else read_vocab(path, added)


def tokenizer_for(text: Mapping[str, Any], source: str | Path | None) -> WordPiece | HfTokenizer:
    """Load the tokenizer of a text tower that only encodes.

    Args:
        text: the component of the text tower.
        source: the config's value, as for ``load_tokenizer``. None means the model's own
            tokenizer for ``hf/*``, and the package's vocabulary for any other tower.
    """
    name = str(text.get("name", ""))
    if source is None and name.startswith(PREFIX):
        return HfTokenizer(name.removeprefix(PREFIX), revision=text.get("revision"))
    if str(source).startswith(PREFIX):
        return HfTokenizer(str(source).removeprefix(PREFIX))
    return load_tokenizer(source)


def read_vocab(path: Path, added: Sequence[str] = ADDED) -> WordPiece:
    """Read a ``vocab.txt``: a token per line, whose line number is its id.

    Whether it is cased stands in the ``tokenizer_config.json`` beside it.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not a vocabulary, a token per line in UTF-8 ({error})"
        ) from None
    tokens = [line.rstrip("\r") for line in lines]
    while tokens and not tokens[-1]:
        tokens.pop()
    if repeated := [token for token, times in Counter(tokens).items() if times > 1]:
        raise ConfigError(f"{path}: tokens that stand there twice: {repeated[:3]}")
    settings = path.with_name("tokenizer_config.json")
    config = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    vocab = {token: index for index, token in enumerate(tokens)}
    lowercase = config.get("do_lower_case", True)
    return WordPiece(vocab, lowercase=lowercase, where=str(path), added=added)


def read_json(path: Path, added: Sequence[str] = ADDED) -> WordPiece:
    """Read a ``tokenizer.json`` of a WordPiece model with BERT's normalisation."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind, vocab = content["model"].get("type", "WordPiece"), dict(content["model"]["vocab"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: not a tokenizer.json ({type(error).__name__}: {error})"
        ) from None
    if kind != "WordPiece":
        raise ConfigError(
            f"{path}: a {kind} tokenizer; expected WordPiece, as BERT's; "
            f"`tokenizer: hf/{path.parent}` reads tokenizers of any kind"
        )
    vocab |= {token["content"]: token["id"] for token in content.get("added_tokens") or []}
    lowercase = (content.get("normalizer") or {}).get("lowercase", True)
    return WordPiece(vocab, lowercase=lowercase, where=str(path), added=added)
