"""Tokenizers of transformers, by hub id or folder: ``hf/roberta-base``, ``hf//my/folder``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavis_lite.errors import ConfigError
from lavis_lite.io.hub import hub_client, offline
from lavis_lite.modules.text.hub_files import first_line, hub_error
from lavis_lite.modules.text.text_batch import ADDED, TextBatch, characters, padded

PREFIX = "hf/"


class HfTokenizer:
    """The tokenizer of a published model, padding on the right.

    Every text ends in the end token, even if the model's own tokenizer adds none (GPT), because a
    causal tower is pooled there. Text is never read as a control token.

    Args:
        name: hub id or folder.
        added: tokens to append to the vocabulary; BLIP's ``[DEC]`` and ``[ENC]``, or none.
        revision: commit or tag of the hub repository.

    Raises:
        ConfigError: no tokenizer there, or one without an end token.
        DownloadError: not in the local cache, and offline or the hub cannot be reached.
    """

    def __init__(self, name: str, added: Sequence[str] = (), revision: str | None = None) -> None:
        tokenizer = self._tokenizer = load_hf_tokenizer(name, revision)
        size = len(tokenizer)
        if size <= len(set(tokenizer.all_special_ids)):  # transformers invents one for no files
            raise ConfigError(f"tokenizer: hf/{name} has no vocabulary, only {size} special tokens")
        self._size = size
        self._added = {token: self._size + number for number, token in enumerate(added)}
        self.cls_id = _first(tokenizer.cls_token_id, tokenizer.bos_token_id)
        end = _first(tokenizer.sep_token_id, tokenizer.eos_token_id)
        if end is None:
            raise ConfigError(f"tokenizer: hf/{name} has no end token ([SEP] or </s>)")
        self.sep_id = end
        self.pad_id: int = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.unk_id, self.mask_id = tokenizer.unk_token_id, tokenizer.mask_token_id
        self.bos_id, self.enc_id = (self._added.get(token, self.cls_id) for token in ADDED)
        self.ends_texts = self._ids("a")[-1:] == [self.sep_id]  # by itself
        self._special_ids = {*tokenizer.all_special_ids, *self._added.values()}

    def __len__(self) -> int:
        return self._size + len(self._added)

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        return self._tokenizer.get_vocab() | self._added

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that are no part of a text."""
        return frozenset(self._special_ids)

    def as_rules(self) -> Any:
        """Return it as a tokenizer of the library tokenizers, which saves itself as one file.

        None where transformers' is not made of one. ``added`` tokens are not in it.
        """
        return getattr(self._tokenizer, "backend_tokenizer", None)

    def encode(
        self,
        texts: Sequence[str],
        max_length: int,
        device: torch.device | str | None = None,
        pad_to_max: bool = False,
    ) -> TextBatch:
        """Encode B texts as ids and mask (B, T), truncated to ``max_length`` with the end kept.

        Args:
            texts: B texts.
            max_length: most tokens per text, special ones included; at least 2.
            device: where the tensors go; the CPU by default.
            pad_to_max: pad to ``max_length`` instead of to the longest text.
        """
        rows = [self._row(text, max_length) for text in texts]
        batch = padded(rows, self.pad_id, max_length if pad_to_max else None)
        return batch if device is None else batch.to(device)

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """Return the text of one row of ids, without special tokens.

        Raises:
            IndexError: an id outside the vocabulary.
        """
        row = [int(index) for index in ids]
        for index in row:
            if not 0 <= index < len(self):
                raise IndexError(f"no token {index} in a vocabulary of {len(self)}")
        return self._tokenizer.decode([i for i in row if i not in self._special_ids]).strip()

    def save(self, folder: str | Path) -> None:
        """Write its files, without the tokens added here; ``hf/FOLDER`` loads them again."""
        self._tokenizer.save_pretrained(folder)

    def _row(self, text: str, max_length: int) -> list[int]:
        if max_length < 2:
            raise ConfigError(f"max_length: {max_length}; at least 2, for a token and the end")
        if self.ends_texts:
            return self._ids(text, truncation=True, max_length=max_length)
        return [*self._ids(text, truncation=True, max_length=max_length - 1), self.sep_id]

    def _ids(self, text: str, **options: int) -> list[int]:
        return self._tokenizer(characters(text), split_special_tokens=True, **options)["input_ids"]


def load_hf_tokenizer(name: str, revision: str | None = None) -> Any:
    """Load a tokenizer of transformers by hub id or folder; code that comes with it is never run.

    Raises:
        ConfigError: no tokenizer there.
        DownloadError: not in the local cache, and offline or the hub cannot be reached.
    """
    from transformers import AutoTokenizer

    try:
        with hub_client(name):
            return AutoTokenizer.from_pretrained(
                name, revision=revision, trust_remote_code=False, local_files_only=offline()
            )
    except OSError as error:
        instead = (
            "`tokenizer=hf/FOLDER` (in a config `model.tokenizer`), a folder that holds "
            "tokenizer.json and tokenizer_config.json"
        )
        raise hub_error(f"tokenizer: hf/{name}", name, error, instead) from None
    except (ValueError, KeyError, ImportError) as error:
        raise ConfigError(f"tokenizer: hf/{name}: {first_line(error)}") from None


def _first(*ids: int | None) -> int | None:
    return next((index for index in ids if index is not None), None)
