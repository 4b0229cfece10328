"""The caption tokenizer against what Stanford's PTBTokenizer 3.4.1 (-preserveLines -lowerCase)
and coco-caption's punctuation list answer; the right-hand sides were recorded from them."""

from __future__ import annotations

import time

import pytest

from lavis_lite.metrics.captioning.words import split_words

RECORDED = {
    "A man's dog doesn't like the children's \"big\" toys, and cannot run.": (
        "a man 's dog does n't like the children 's big toys and can not run"
    ),
    "Two people (one tall) are on a black-and-white sofa; it's 3,000 dollars...": (
        "two people -lrb- one tall -rrb- are on a black-and-white sofa it 's 3,000 dollars"
    ),
    "The grey colour of Mr. Smith's U.S. flag - it costs $5.50 & 50% off!": (
        "the grey colour of mr. smith 's u.s. flag it costs $ 5.50 & 50 % off"
    ),
    "A dog/cat at 10:30 a.m. isn't gonna move -- ever?": (
        "a dog/cat at 10:30 a.m. is n't gon na move ever"
    ),
    "Rock 'n' roll players' guitars 'quoted' words. And don't you'll they've I'd we're I'm": (
        "rock 'n' roll players guitars quoted words and do n't you 'll they 've i 'd we 're i 'm"
    ),
    'A stop sign that says "STOP" #1 [brackets] {braces} <tag> user@mail.com http://x.com/a': (
        "a stop sign that says stop # 1 -lsb- brackets -rsb- -lcb- braces -rcb- <tag> "
        "user@mail.com http://x.com/a"
    ),
    'a big purple square on grey, over "to the left of" a 2-story t-shirt.': (
        "a big purple square on grey over to the left of a 2-story t-shirt"
    ),
    "wanna gotta lemme o'clock 1990's 50's St. Louis vs. e.g. etc. ok": (
        "wan na got ta lem me o'clock 1990 's 50 's st. louis vs. e.g. etc. ok"
    ),
    "naïve — dash – en… ellipsis ‘curly’ “double” it’s don’t": (
        "naïve dash en ellipsis curly double it 's do n't"
    ),
    "free shipping!!! *** ??? a+b=c 1/2 cup 3.5 ft. 5'10\" tall": (
        "free shipping !!! *** ??? a + b = c 1/2 cup 3.5 ft. 5 10 tall"
    ),
    "He said ,hello .world two.three end.": "he said hello world two.three end",
    "software--to make sure": "software to make sure",
}


@pytest.mark.parametrize("caption", RECORDED)
def test_words_are_those_that_the_original_tokenizer_leaves(caption: str) -> None:
    assert split_words(caption) == RECORDED[caption].split(" ")


@pytest.mark.parametrize("caption", ["", "   ", "...", " . , ! "])
def test_a_caption_without_words_has_none(caption: str) -> None:
    assert split_words(caption) == []


@pytest.mark.parametrize("unit", ["a", "a+", "a.", "a@", "'", "<a", "n't ", "\x00", "9,"])
def test_a_very_long_caption_takes_no_time(unit: str) -> None:
    started = time.perf_counter()
    split_words(unit * 10_000)
    assert time.perf_counter() - started < 5  # a watchdog against backtracking without bound
