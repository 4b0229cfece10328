"""WordPiece as BERT's uncased models use it, with BLIP's two extra tokens.

``[DEC]`` starts a text that a decoder writes, ``[ENC]`` one that is read together with an image.
They replace the ``[CLS]`` at position 0 and are the last two ids of the vocabulary. Without them
``[CLS]`` starts every text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from lavis_lite.errors import ConfigError
from lavis_lite.text.source import locate

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ADDED = ("[DEC]", "[ENC]")
PACKAGED = Path(__file__).with_name("vocab.txt")


def characters(text: str) -> str:
    """The text with ``?`` for each half of a surrogate pair, which tokenizers do not take."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def padded(rows: list[list[int]], pad_id: int, length: int | None = None) -> TextBatch:
    """Rows of ids padded on the right, to the longest or to a length, on the CPU."""
    length = length or max(map(len, rows), default=2)
    ids = [row + [pad_id] * (length - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
    shape = (len(rows), length)
    # Said outright: a model may be built without storage, inside `torch.device("meta")`.
    tensors = [torch.tensor(x, dtype=torch.long, device="cpu").view(shape) for x in (ids, mask)]
    return TextBatch(*tensors)


class TextBatch(NamedTuple):
    """Token ids (B, T), padded on the right, and their mask (B, T), 1 for real tokens."""

    ids: Tensor
    mask: Tensor

    @property
    def input_ids(self) -> Tensor:
        """The ids, under the name that transformers gives them."""
        return self.ids

    @property
    def attention_mask(self) -> Tensor:
        """The mask, under the name that transformers gives it."""
        return self.mask

    def to(self, device: torch.device | str) -> TextBatch:
        """The same batch on another device."""
        return TextBatch(self.ids.to(device), self.mask.to(device))

    def replace_first(self, token_id: int) -> TextBatch:
        """The batch with another token at position 0; ids are copied, the mask is shared."""
        ids = self.ids.clone()
        ids[:, 0] = token_id
        return TextBatch(ids, self.mask)


class WordPiece:
    """Texts to ids and back: lower case, accents stripped, greedy longest pieces.

    What a text says is never a control token: a ``[SEP]`` in a caption is read as the characters
    it consists of. (transformers would end the sentence there.)

    Args:
        vocab: token -> id, ids 0 to V - 1; what is ``added`` is appended when missing.
        lowercase: lower the case and strip accents, as uncased models need it.
        where: the file that it comes from, for the messages.
        added: ``ADDED``, or nothing for models that know neither: their texts start with ``[CLS]``.

    Raises:
        ConfigError: an empty vocabulary, ids with gaps, or special tokens missing.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        *,
        lowercase: bool = True,
        where: str = "the vocabulary",
        added: Sequence[str] = ADDED,
    ) -> None:
        self._vocab = checked(vocab, where, added)
        self._tokens = {index: token for token, index in self._vocab.items()}
        self.lowercase = lowercase
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            self._vocab[token] for token in SPECIAL
        )
        starts = added or ("[CLS]", "[CLS]")
        self.bos_id, self.enc_id = (self._vocab[token] for token in starts)
        self._special_ids = {self._vocab[token] for token in (*SPECIAL, *added)}
        self._tokenizer = Tokenizer(models.WordPiece(self._vocab, unk_token="[UNK]"))
        self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._decoder = decoders.WordPiece(prefix="##", cleanup=True)

    def __len__(self) -> int:
        return len(self._vocab)

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        return dict(self._vocab)

    def encode(
        self,
        texts: Sequence[str],
        max_length: int,
        device: torch.device | str | None = None,
        pad_to_max: bool = False,
    ) -> TextBatch:
        """Texts as ``[CLS] ... [SEP]``, truncated and padded on the right.

        Args:
            texts: B texts.
            max_length: most tokens per text, the two special ones included; at least 2.
            device: where the tensors go; the CPU by default.
            pad_to_max: pad to ``max_length`` instead of to the longest text.

        Returns:
            ids and mask (B, T).
        """
        rows = [self._row(text, max_length) for text in texts]
        batch = padded(rows, self.pad_id, max_length if pad_to_max else None)
        return batch if device is None else batch.to(device)

    def _row(self, text: str, max_length: int | None) -> list[int]:
        if max_length is not None and max_length < 2:
            raise ConfigError(
                f"max_length: {max_length}; at least 2, for [CLS] and [SEP] around the text"
            )
        # One text at a time: batches go through a thread pool that does not survive a fork of
        # loader workers and that, for captions, is no faster.
        ids = self._tokenizer.encode(characters(text), add_special_tokens=False).ids
        return [self.cls_id, *ids[: None if max_length is None else max_length - 2], self.sep_id]

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """The text of one row of ids, without special tokens, spaces tidied as transformers does.

        Raises:
            IndexError: an id outside the vocabulary.
        """
        pieces = []
        for index in map(int, ids.tolist() if isinstance(ids, Tensor) else ids):
            if index not in self._tokens:
                raise IndexError(f"no token {index} in a vocabulary of {len(self)}")
            if index not in self._special_ids:
                pieces.append(self._tokens[index])
        return self._decoder.decode(pieces)

    def __call__(
        self,
        text: str | Sequence[str],
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
    ) -> Any:
        """Tokenizes as callers of transformers and LAVIS write it.

        Returns:
            With ``return_tensors="pt"`` a TextBatch, otherwise lists (one list for one text);
            either way with ``input_ids`` and ``attention_mask``.

        Raises:
            ConfigError: tensors of unequal rows, or another ``return_tensors``.
        """
        texts = [text] if isinstance(text, str) else list(text)
        rows = [self._row(one, max_length if truncation else None) for one in texts]
        length = max(map(len, rows), default=0) if padding in (True, "longest") else 0
        if padding == "max_length":
            if max_length is None:
                raise ConfigError('padding="max_length" needs max_length')
            length = max_length
        mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
        ids = [row + [self.pad_id] * (length - len(row)) for row in rows]
        if return_tensors is None:
            one = isinstance(text, str)
            return SimpleNamespace(
                input_ids=ids[0] if one else ids, attention_mask=mask[0] if one else mask
            )
        if return_tensors != "pt":
            raise ConfigError(f"return_tensors: {return_tensors!r}; 'pt' or None")
        if len({len(row) for row in ids}) > 1:
            raise ConfigError("tensors need rows of one length: give padding=True")
        return TextBatch(torch.tensor(ids), torch.tensor(mask))


def load_tokenizer(source: str | Path | None = None, added: Sequence[str] = ADDED) -> WordPiece:
    """The tokenizer of a vocabulary.

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
        from lavis_lite.text.hf_tokenizer import HfTokenizer

        return HfTokenizer(str(source).removeprefix("hf/"), added)  # type: ignore[return-value]
    path = locate(source, ("vocab.txt", "tokenizer.json"), "tokenizer")
    return read_json(path, added) if path.suffix == ".json" else read_vocab(path, added)


def read_vocab(path: Path, added: Sequence[str] = ADDED) -> WordPiece:
    """A ``vocab.txt``: a token per line, the line number is its id.

    Cased models say so in the ``tokenizer_config.json`` beside it.
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
    """A ``tokenizer.json`` of a WordPiece model with BERT's normalisation."""
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


def checked(vocab: dict[str, int], where: str, added: Sequence[str]) -> dict[str, int]:
    """The vocabulary with what is added, its special tokens and ids proven complete."""
    if not vocab:
        raise ConfigError(f"{where}: an empty vocabulary; expected a token per line")
    if missing := [token for token in SPECIAL if token not in vocab]:
        raise ConfigError(
            f"{where}: no {', '.join(missing)}; a BERT vocabulary has {', '.join(SPECIAL)}"
        )
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ConfigError(f"{where}: ids must be 0 to {len(vocab) - 1}, each once")
    return vocab | {
        token: len(vocab) + number
        for number, token in enumerate(token for token in added if token not in vocab)
    }
