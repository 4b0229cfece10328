"""Tokenization of captions as in the coco-caption evaluation, without its Java program.

coco-caption runs Stanford's PTBTokenizer (CoreNLP 3.4.1, lower-cased) and drops a short list of
punctuation tokens. This is a small tokenizer of our own with the same outcome on captions: clitics
are split (``dog 's``, ``do n't``, ``can not``), brackets become ``-lrb-`` (and stay, as there),
``-``, ``.``, quotes and the other marks of the list vanish while ``!!`` stays. It knows fewer
abbreviations and special forms than the original; tests/metrics/test_words.py holds what the
original answers.
"""

from __future__ import annotations

import re

# What coco-caption removes; runs of marks ("!!") and lower-case brackets are not in its list.
_REMOVED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_UNICODE = str.maketrans(
    {"‘": "`", "’": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": "...", "\u00a0": " "}
)
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|st|jr|sr|prof|gen|rep|sen|gov|lt|col|sgt|capt|ft|vs|etc|inc|ltd|corp|co|bros|"
    "ave|blvd|rd|mt|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec"
)
_CLITIC = r"'(?:[sdm]|ll|re|ve)(?![^\W_])"
# Written as one word, two words to the Penn Treebank.
_COMPOUND = re.compile(r"(can)(not)|(gon|wan)(na)|(got)(ta)|(gim|lem)(me)")

_TOKEN = re.compile(
    rf"""
    https?://[^\s"<>]+ | [\w.+-]{{1,64}}@[\w-]+(?:\.[\w-]+)+    # addresses
  | </?[a-z][^<>\s]*>                                           # markup
  | (?:[a-z]\.){{2,}}                                           # u.s. a.m. e.g.
  | (?:{_ABBREVIATIONS})\.(?=[\s,;]|$)                          # mr. ft.
  | {_CLITIC} | 'n'(?!\w)                                       # dog 's, rock 'n' roll
  | \d+(?:[.,:/]\d+)+(?![^\W_]) | (?<![\w.])\.\d+               # 3,000 10:30 1/2 .5
  | [^\W_]+(?:[-/_.&@][^\W_]+|(?!{_CLITIC})'[^\W\d_]+)*         # words and compounds
  | \.{{2,}} | -{{2,}} | [!?]+ | \*+ | ''+ | ``+ | \S
    """,
    re.VERBOSE,
)


def split_words(caption: str) -> list[str]:
    """Lower-case words of a caption without punctuation, clitics apart.

    ``split_words("A man's dog isn't big.")`` is ``["a", "man", "'s", "dog", "is", "n't", "big"]``.
    """
    words = []
    for token in _TOKEN.findall(caption.lower().translate(_UNICODE)):
        for word in _split_compound(_BRACKETS.get(token, token)):
            if word not in _REMOVED and word != '"':
                words.append(word)
    return words


def _split_compound(token: str) -> list[str]:
    if token.endswith("n't") and len(token) > 3:
        return [token[:-3], "n't"]
    if match := _COMPOUND.fullmatch(token):
        return [part for part in match.groups() if part]
    return [token]
