"""What holds for every method: lengths, ends, batches, caches, and settings that are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_lite.errors import ConfigError
from lavis_lite.modules.generation import generate
from lavis_lite.modules.med.decoder import GroundedDecoder
from lavis_lite.modules.med.model import MedDecoder

METHODS = [
    {"method": "greedy"},
    {"method": "beam", "num_beams": 3, "num_return": 2},
    {"method": "nucleus", "num_return": 3},
]


@pytest.mark.fault(55)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 5),
    vocab=st.integers(6, 12),
    prompt_length=st.integers(1, 3),
    new=st.integers(1, 8),
    shortest=st.integers(0, 12),
    penalty=st.sampled_from([1.0, 1.5]),
    end_bias=st.sampled_from([0.0, 2.0, 5.0]),
    options=st.sampled_from(METHODS),
)
@settings(max_examples=120, deadline=None)
def test_lengths_are_honoured_and_nothing_follows_the_end(
    table: Callable[..., Any],
    seed: int,
    images: int,
    vocab: int,
    prompt_length: int,
    new: int,
    shortest: int,
    penalty: float,
    end_bias: float,
    options: dict,
) -> None:
    longest = prompt_length + new
    shortest = min(shortest, longest)
    end = vocab - 1
    prompt = torch.full((images, prompt_length), 1)
    texts = generate(
        table(seed, images, longest + 1, vocab, end_bias),
        prompt,
        max_length=longest,
        min_length=shortest,
        repetition_penalty=penalty,
        eos_id=end,
        pad_id=0,
        seeds=list(range(images)),
        **options,
    )
    assert len(texts) == images * options.get("num_return", 1)
    for text in texts:
        assert text[:prompt_length] == [1] * prompt_length
        assert max(shortest, prompt_length) <= len(text) <= longest
        assert end not in text


@pytest.mark.fault(55)
@pytest.mark.parametrize("options", METHODS)
@pytest.mark.parametrize("masked", [False, True])
def test_the_cache_changes_nothing(
    med_decoder: MedDecoder, recompute: Any, options: dict, masked: bool
) -> None:
    image = torch.randn(8, 5, 12)
    mask = (torch.arange(5) < torch.tensor([5, 3, 4, 5, 1, 2, 5, 5])[:, None]) if masked else None
    prompt = torch.tensor([[28, 5, 6]] * 8)
    for penalty in (1.0, 1.3):
        arguments = {
            "max_length": 14, "eos_id": 3, "pad_id": 0, "seeds": list(range(8)),
            "repetition_penalty": penalty, **options,
        }  # fmt: skip
        kv = med_decoder.bert.project(image)
        cached = generate(GroundedDecoder(med_decoder, kv, mask), prompt, **arguments)
        assert cached == generate(recompute(med_decoder, kv, mask), prompt, **arguments)
        assert len({len(text) for text in cached}) > 1  # some end early, so that images leave


@pytest.mark.parametrize("options", METHODS)
def test_an_image_alone_gets_the_texts_that_it_gets_among_others(
    med_decoder: MedDecoder, options: dict
) -> None:
    image, seeds = torch.randn(8, 5, 12), [7, 1, 1, 5, 2**63, 9, 0, 3]
    arguments = {"max_length": 14, "eos_id": 3, "pad_id": 0, **options}

    def texts(rows: list[int]) -> list[list[int]]:
        session = GroundedDecoder(med_decoder, med_decoder.bert.project(image[rows]))
        prompt = torch.tensor([[28, 5]] * len(rows))
        return generate(session, prompt, seeds=[seeds[row] for row in rows], **arguments)

    together, count = texts(list(range(8))), options.get("num_return", 1)
    for row in range(8):
        assert texts([row]) == together[row * count : (row + 1) * count]
    assert texts([6, 2]) == together[6 * count : 7 * count] + together[2 * count : 3 * count]


@pytest.mark.parametrize("options", METHODS)
def test_finished_images_leave_the_batch(table: Callable[..., Any], options: dict) -> None:
    decoder = table(0, 4, 12, 8)
    decoder.logits[1:, 3:, :, 7] = 30.0  # three of the four end after a token or two
    decoder.logits[0, :, :, 7] = -30.0
    texts = generate(
        decoder,
        torch.ones(4, 2).long(),
        max_length=10,
        eos_id=7,
        pad_id=0,
        seeds=[1] * 4,
        **options,
    )
    count = options.get("num_return", 1)
    assert all(len(text) == 10 for text in texts[:count])
    assert all(len(text) < 7 for text in texts[count:])
    assert decoder.served[0] == 4
    assert decoder.served[-1] == 1


def test_a_session_can_be_used_again(med_decoder: MedDecoder) -> None:
    session = GroundedDecoder(med_decoder, med_decoder.bert.project(torch.randn(6, 5, 12)))
    prompt = torch.tensor([[28, 5]] * 6)
    arguments = {"max_length": 14, "eos_id": 3, "pad_id": 0}
    first = generate(session, prompt, method="greedy", **arguments)
    generate(session, prompt, method="beam", num_beams=4, **arguments)
    assert generate(session, prompt, method="greedy", **arguments) == first


@pytest.mark.parametrize("options", METHODS)
def test_it_writes_under_bf16_autocast(med_decoder: MedDecoder, options: dict) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        kv = med_decoder.bert.project(torch.randn(2, 5, 12))
        texts = generate(
            GroundedDecoder(med_decoder, kv),
            torch.tensor([[28, 5]] * 2),
            **{"max_length": 10, "eos_id": 3, "pad_id": 0, **options},
        )
    assert all(2 <= len(text) <= 10 for text in texts)


def test_no_images_give_no_texts(med_decoder: MedDecoder) -> None:
    session = GroundedDecoder(med_decoder, [])
    assert generate(session, torch.empty(0, 2).long(), max_length=5, eos_id=3, pad_id=0) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "beams"}, "'beams'. Did you mean 'beam'.*greedy, nucleus"),
        ({"max_length": 2}, "max_length: 2; .*prompt, which has 2 tokens, so at least 3"),
        ({"min_length": 11}, "min_length: 11; at most max_length, 10"),
        ({"num_beams": 0}, "num_beams: 0; at least 1"),
        ({"num_beams": 3, "num_return": 4}, "texts per image: 4; from 1 to 3 .*'beam' and 3 beams"),
        ({"method": "greedy", "num_return": 2}, "texts per image: 2; from 1 to 1"),
        ({"method": "nucleus", "num_return": 0}, "texts per image: 0"),
        ({"method": "nucleus", "top_p": 0.0}, "top_p: 0.0; above 0, at most 1"),
        ({"method": "nucleus", "top_p": 1.5}, "top_p: 1.5"),
        ({"method": "nucleus", "top_k": -1}, "top_k: -1"),
        ({"method": "nucleus", "temperature": 0.0}, "temperature: 0.0; above 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: 0.0"),
        ({"method": "nucleus", "seeds": [1]}, "seeds: 1 of them for 2 images"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    table: Callable[..., Any], options: dict, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        generate(
            table(0, 2, 11, 8),
            torch.ones(2, 2).long(),
            **{"max_length": 10, "eos_id": 7, "pad_id": 0, **options},
        )
