"""VQA's accuracy of an answer: its normalisation of words, and how ten people's answers count.

The rules of the evaluation that VQA's authors published, with their oddities, so that figures are
comparable. Reference: https://visualqa.org/evaluation.html and github.com/GT-Vision-Lab/VQA.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = 32  # a flag given where a count belongs; no answer has more
_NUMBERS = "zero one two three four five six seven eight nine ten"
_DIGITS = {"none": "0", **{word: str(n) for n, word in enumerate(_NUMBERS.split())}}
_ARTICLES = {"a", "an", "the"}
# Written without one of their apostrophes these get it back: dont, couldnt've, couldn'tve.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't
    mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've
    should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
    someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't
    what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
    who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd
    you'd've you'll you're you've
"""
_RESTORED = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTIONS.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}


def normalise(answer: str) -> str:
    """Lower case, without articles and most punctuation, numbers as digits, apostrophes restored.

    ``normalise("Two dogs, a cat")`` is ``"2 dogs cat"``.
    """
    words = [_DIGITS.get(word, word) for word in _without_punctuation(_tidy(answer)).split()]
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def _tidy(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(text: str) -> str:
    """Lower the case; a mark beside a space, or any if a number has a comma, leaves no gap."""
    found, joined = text, _COMMA_IN_NUMBER.search(text) is not None
    for mark in _PUNCTUATION:
        gap = "" if joined or f"{mark} " in text or f" {mark}" in text else " "
        found = found.replace(mark, gap)
    return _PERIOD.sub("", found, count=_PERIODS_REMOVED).lower()


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return an answer's accuracy in [0, 1]: 1 if three other people gave it.

    The mean over leaving out each person of min(1, matches among the others / 3). Where all
    people agree, words are compared as they are; else all are normalised. Fewer than four people
    cannot be asked so; then it is the share of them who agree, of one person exactly their answer.

    Args:
        answer: the model's.
        references: the people's, one for each; VQA has ten.
    """
    answer, people = _tidy(answer), [_tidy(reference) for reference in references]
    if len(set(people)) > 1 or len(people) < 4:
        answer, people = normalise(answer), [normalise(person) for person in people]
    matches, number = people.count(answer), len(people)
    if number < 4:
        return matches / number
    others = [matches - (person == answer) for person in people]
    return sum(min(1.0, other / 3) for other in others) / number


def aok_vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """A-OKVQA's accuracy, in [0, 1]: min(1, people who gave exactly this answer / 3).

    Reference: https://arxiv.org/abs/2206.01718, section 4.
    """
    return min(1.0, sum(answer == reference for reference in references) / 3)
