"""WordPiece as BERT's uncased models use it, with BLIP's two extra tokens.

``[DEC]`` starts a text that a decoder writes, ``[ENC]`` one that is read together with an image.
They replace the ``[CLS]`` at position 0 and are the last two ids of the vocabulary. Without one of
them ``[CLS]`` starts its texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from lavis_lite.errors import ConfigError
from lavis_lite.modules.text.text_batch import ADDED, SPECIAL, TextBatch, characters, padded


class WordPiece:
    """A tokenizer of texts: lower case, accents stripped, greedy longest pieces.

    Text is never read as a control token: a ``[SEP]`` in a caption is read as the characters
    it consists of. (transformers would end the sentence there.)

    Args:
        vocab: token -> id, ids 0 to V - 1; missing tokens of ``added`` are appended.
        lowercase: lower the case and strip accents, as uncased models need it.
        where: the file of the vocabulary, for error messages.
        added: those of ``ADDED`` that the model knows: texts that it writes or reads with an image
            start with ``[CLS]`` otherwise.

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
        self.bos_id, self.enc_id = (
            self._vocab[token] if token in added else self.cls_id for token in ADDED
        )
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

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that are no part of a text."""
        return frozenset(self._special_ids)

    def as_rules(self) -> Tokenizer:
        """Return it as a tokenizer of the library tokenizers: it saves itself as one file.

        That one puts ``[CLS]`` and ``[SEP]`` around a text, and neither cuts nor pads it.
        """
        rules = Tokenizer.from_str(self._tokenizer.to_str())
        rules.decoder = self._decoder
        ends = [(token, self._vocab[token]) for token in ("[CLS]", "[SEP]")]
        rules.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
        return rules

    def encode(
        self,
        texts: Sequence[str],
        max_length: int,
        device: torch.device | str | None = None,
        pad_to_max: bool = False,
    ) -> TextBatch:
        """Encode texts as ``[CLS] ... [SEP]``, truncated and padded on the right.

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
        """Return the text of a row of ids, without special tokens, with spaces as in transformers.

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
    ) -> TextBatch | SimpleNamespace:
        """Tokenize with the call signature of transformers and LAVIS.

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


def checked(vocab: dict[str, int], where: str, added: Sequence[str]) -> dict[str, int]:
    """Return the vocabulary with ``added``; check that special tokens and ids are complete."""
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
