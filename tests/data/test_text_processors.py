import logging

import pytest

from lavis_lite.data.text_processors import BlipCaption, BlipQuestion


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ('A "Dog" runs.', "a dog runs"),
        ("One; two: three~four#five", "one two three four five"),
        ("  much   space\t\there \n", "much space here"),
        ("it's red, isn't it? well-known", "it's red, isn't it? well-known"),
        ("", ""),
        ("...!", ""),
        ("emoji 🙂 and \x00 nul", "emoji 🙂 and \x00 nul"),
    ],
)
def test_captions_are_cleaned_as_the_original_does(text, cleaned):
    assert BlipCaption()(text) == cleaned


def test_a_prompt_stands_before_the_caption_and_does_not_count():
    assert BlipCaption(prompt="a picture of ", max_words=2)("A b c") == "a picture of a b"


def test_questions_lose_punctuation_without_a_gap():
    assert BlipQuestion()("What's (in) the Box? ") == "what's in the box?"
    assert BlipQuestion(max_words=2)("a b c") == "a b"


def test_long_captions_are_cut_and_the_first_is_reported(caplog):
    processor = BlipCaption(max_words=50)
    with caplog.at_level(logging.WARNING):
        for _ in range(999):
            assert processor("word " * 10_000) == " ".join(["word"] * 50)
        assert len(caplog.records) == 1
        assert "10000 words" in caplog.text
        processor("word " * 60)
    assert len(caplog.records) == 2
    assert "1000 so far" in caplog.text
