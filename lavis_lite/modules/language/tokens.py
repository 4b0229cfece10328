"""Texts as a language model's ids: where they start, how they end, and back.

Dim letters: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lavis_lite.errors import ConfigError
from lavis_lite.modules.text.hf_tokenizer import load_hf_tokenizer
from lavis_lite.modules.text.text_batch import characters
from lavis_lite.modules.text.wordpiece import WordPiece

IGNORED = -100  # a target that is not learnt
_ANY_LENGTH = 1 << 20


class LanguageTokens:
    """The tokenizer of a language model, with the ids that its texts start and end with.

    Text is never read as a control token.

    Args:
        name: hub id or folder.
        start: the token in front of every text; None: the one that the tokenizer itself puts there,
            or none.
        end: what ends a text, such as a newline; None: the tokenizer's end token.
        revision: commit or tag of the hub repository.

    Attributes:
        tokenizer: transformers' tokenizer.
        start_ids: ids in front of a text, one or none.
        end_id: the id that ends one.
        pad_id: the id of padding.

    Raises:
        ConfigError: no tokenizer there, or a start or end that is not one token.
        DownloadError: not in the local cache, and offline or the hub cannot be reached.
    """

    def __init__(
        self,
        name: str,
        start: str | None = None,
        end: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.tokenizer = load_hf_tokenizer(name, revision)
        self._name = name
        first = self.tokenizer.bos_token_id
        own = first is not None and self.tokenizer("a")["input_ids"][:1] == [first]
        self.start_ids = [first] if own and start is None else self._one("start", start)
        ends = self._one("end", end) if end is not None else [self.tokenizer.eos_token_id]
        if ends == [None]:
            raise ConfigError(f"hf/{name}: its tokenizer has no end token; name one with `end`")
        self.end_id: int = ends[0]
        pad = self.tokenizer.pad_token_id
        self.pad_id: int = self.end_id if pad is None else pad
        self._special_ids = {*self.tokenizer.all_special_ids, self.end_id}

    def __len__(self) -> int:
        """V."""
        return len(self.tokenizer)

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text alone, without start and end."""
        options = {"add_special_tokens": False, "split_special_tokens": True}
        return self.tokenizer(characters(text), **options)["input_ids"]

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """Return the text of one row of ids, without special tokens and surrounding spaces."""
        row = [index for index in map(int, ids) if index not in self._special_ids]
        return self.tokenizer.decode(row).strip()

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files."""
        self.tokenizer.save_pretrained(folder)

    def _one(self, key: str, text: str | None) -> list[int]:
        if text is None:
            return []
        known = self.tokenizer.get_vocab().get(text)
        ids: Sequence[int] = self.ids(text) if known is None else [known]
        if len(ids) != 1:
            raise ConfigError(
                f"hf/{self._name}: {key}: {text!r} is {len(ids)} tokens of its vocabulary; one is "
                "needed"
            )
        return list(ids)


class WordPieceTokens:
    """A WordPiece vocabulary for a language model: ``[DEC]`` starts a text, ``[SEP]`` ends it.

    Args:
        words: the tokenizer.

    The attributes and methods are those of ``LanguageTokens``.
    """

    def __init__(self, words: WordPiece) -> None:
        self.words = words
        self.start_ids = [words.bos_id]
        self.end_id = words.sep_id
        self.pad_id = words.pad_id

    def __len__(self) -> int:
        """V."""
        return len(self.words)

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text alone, without start and end."""
        return self.words.encode([text], _ANY_LENGTH).ids[0, 1:-1].tolist()

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """Return the text of one row of ids, without special tokens and surrounding spaces."""
        return self.words.decode(ids).strip()


def pad_rows(rows: list[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pad rows of ids on the right: ids (B, T), and True where a token is real."""
    length = max(map(len, rows), default=0)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), length), dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : len(row)] = True
    return ids.to(device), mask.to(device)


Tokens = LanguageTokens | WordPieceTokens
