"""The words of texts that a tokenizer does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from lavis_lite.modules.text.hf_tokenizer import HfTokenizer
from lavis_lite.modules.text.wordpiece import WordPiece

_WHOLE = 512  # tokens of a word that are looked at


@dataclass(frozen=True)
class Coverage:
    """Words of some texts, split at spaces, and those among them that are read as [UNK].

    Attributes:
        words: all of them, repetitions included.
        unknown: how often each unknown word occurs, the most frequent first.
    """

    words: int
    unknown: dict[str, int]

    @property
    def share(self) -> float:
        """The share of unknown words, in [0, 1]."""
        return sum(self.unknown.values()) / max(self.words, 1)


def coverage(tokenizer: WordPiece | HfTokenizer, texts: Iterable[str]) -> Coverage:
    """Look every word of the texts up; a tokenizer without [UNK] (of bytes) knows all of them.

    Args:
        tokenizer: with ``unk_id``; one that is the end token too, as CLIP's, stands for no [UNK].
        texts: as the model reads them, after their processor.
    """
    counts = Counter(word for text in texts for word in text.split())
    unk = getattr(tokenizer, "unk_id", None)
    if unk is not None and unk == tokenizer.sep_id:
        unk = None
    unknown = [
        (word, times)
        for word, times in counts.most_common()
        if unk is not None and unk in tokenizer.encode([word], _WHOLE).ids[0].tolist()
    ]
    return Coverage(counts.total(), dict(unknown))
