"""Cleaned captions and questions: what holds for any text."""

from __future__ import annotations

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from lavis_lite.data.text_processors import BlipCaption, BlipQuestion
from lavis_lite.modules.text.load_tokenizer import load_tokenizer

TEXTS = st.one_of(st.text(max_size=80), st.text("aB ,.!\"()*#:;~?'-\n\t", max_size=80))
TAKEN_OUT = set('.!"()*#:;~')


@given(TEXTS, st.integers(1, 12))
def test_a_cleaned_caption_has_no_such_punctuation_and_at_most_its_words(
    text: str, max_words: int
) -> None:
    clean = BlipCaption(max_words=max_words)(text)
    assert not TAKEN_OUT & set(clean)
    assert not re.search("[A-Z]", clean)
    assert len(clean.split(" ")) <= max_words
    assert not re.search(r"\s{2,}", clean)
    assert not clean.startswith(" ")


@given(TEXTS, st.integers(1, 12))
def test_cleaning_twice_is_cleaning_once(text: str, max_words: int) -> None:
    assume(text.lower().lower() == text.lower())  # not so for a few letters
    for processor in (BlipCaption(max_words=max_words), BlipQuestion(max_words=max_words)):
        assert processor(processor(text)) == processor(text)


@given(TEXTS)
def test_a_cleaned_caption_says_the_words_of_the_text_in_their_order(text: str) -> None:
    words = iter(re.sub(r'[.!"()*#:;~]', " ", text.lower()).split())
    assert all(any(word == own for own in words) for word in BlipCaption()(text).split())


@given(TEXTS, st.text("ab ", max_size=12))
def test_the_prompt_stands_before_it_as_it_is(text: str, prompt: str) -> None:
    assert BlipCaption(prompt=prompt)(text) == prompt + BlipCaption()(text)


@given(TEXTS, st.integers(3, 20))
def test_any_cleaned_caption_becomes_ids_within_the_limit(text: str, limit: int) -> None:
    tokenizer = load_tokenizer(None)
    batch = tokenizer.encode([BlipCaption()(text)], limit)
    assert batch.ids.shape[1] <= limit
    assert int(batch.ids.max()) < len(tokenizer)
    assert (batch.ids[0, 0], batch.ids[0, -1]) == (tokenizer.cls_id, tokenizer.sep_id)
