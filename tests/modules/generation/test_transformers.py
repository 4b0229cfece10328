"""The same logits and ids as transformers' BLIP on random weights.

What transformers 5 does differently stays out: its hypotheses are scored by their length without
the prompt, so texts that end early are compared at length penalty 0; and its cross-attention
ignores the mask of image tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lavis_lite.modules.generation import generate
from lavis_lite.modules.med.decoder import GroundedDecoder
from lavis_lite.modules.med.model import Med, MedDecoder

VOCAB, END = 60, 3
PROMPT = [VOCAB - 2, 7, 8]


class Pair(NamedTuple):
    """Both implementations with one set of weights, and images for them."""

    theirs: Any
    ours: MedDecoder
    pixels: Tensor
    image_tokens: Tensor


@pytest.fixture(scope="module")
def pair() -> Pair:
    from transformers import BlipConfig, BlipForConditionalGeneration

    torch.manual_seed(0)
    config = BlipConfig(
        text_config={
            "vocab_size": VOCAB, "hidden_size": 32, "encoder_hidden_size": 24,
            "intermediate_size": 48, "projection_dim": 8, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 40, "bos_token_id": VOCAB - 2,
            "sep_token_id": END, "eos_token_id": END, "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
        },
        projection_dim=8,
    )  # fmt: skip
    theirs = BlipForConditionalGeneration(config).eval()
    ours = MedDecoder(
        Med(
            width=32, depth=2, num_heads=4, mlp_width=48, vocab_size=VOCAB, encoder_width=24,
            max_length=40,
        )
    ).eval()  # fmt: skip
    pixels = torch.randn(6, 3, 32, 32)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.35 * torch.randn_like(parameter))
        ours.load_state_dict(theirs.text_decoder.state_dict())
        return Pair(theirs, ours, pixels, theirs.vision_model(pixels)[0])


@torch.no_grad()
def test_decoder_logits_are_equal(pair: Pair) -> None:
    ids = torch.randint(1, VOCAB, (6, 9))
    theirs = pair.theirs.text_decoder(input_ids=ids, encoder_hidden_states=pair.image_tokens)
    ours = pair.ours(ids, image_kv=pair.ours.bert.project(pair.image_tokens))
    torch.testing.assert_close(ours, theirs.logits, rtol=1e-5, atol=5e-5)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["text", "multimodal"])
def test_encoder_states_are_equal(pair: Pair, mode: str) -> None:
    ids = torch.randint(1, VOCAB, (6, 9))
    mask = (torch.arange(9) < torch.tensor([9, 2, 7, 9, 4, 5])[:, None]).long()
    med = pair.ours.bert
    image = pair.image_tokens if mode == "multimodal" else None
    theirs = pair.theirs.text_decoder.bert(
        ids, attention_mask=mask, encoder_hidden_states=image, is_decoder=False
    ).last_hidden_state
    ours = med(ids, mask, mode=mode, image_kv=None if image is None else med.project(image))
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("end_bias", "options"),
    [
        (8.0, {"num_beams": 1}),
        (8.0, {"num_beams": 1, "min_length": 8, "repetition_penalty": 1.3}),
        (6.0, {"num_beams": 3, "length_penalty": 0.0}),
        (6.0, {"num_beams": 5, "length_penalty": 0.0, "repetition_penalty": 1.3}),
        (6.0, {"num_beams": 5, "length_penalty": 0.0, "min_length": 8}),
        (-1e4, {"num_beams": 3, "repetition_penalty": 1.3}),
        (-1e4, {"num_beams": 5}),
    ],
)
def test_written_ids_are_equal(pair: Pair, end_bias: float, options: dict) -> None:
    for model in (pair.ours, pair.theirs.text_decoder):
        model.cls.predictions.bias[END] = end_bias
    arguments = {"max_length": 14, **options}
    num_beams = options["num_beams"]
    # Their generate drops the last token of the prompt, meant for [SEP].
    theirs = pair.theirs.generate(
        pixel_values=pair.pixels,
        input_ids=torch.tensor([[*PROMPT, END]] * 6),
        do_sample=False,
        num_return_sequences=num_beams,
        **arguments,
    )
    ours = generate(
        GroundedDecoder(pair.ours, pair.ours.bert.project(pair.image_tokens)),
        torch.tensor([PROMPT] * 6),
        num_return=num_beams,
        eos_id=END,
        pad_id=0,
        **arguments,
    )
    assert ours == [until_end(text) for text in theirs.tolist()]
    assert (end_bias > 0) == any(len(text) < 14 for text in ours)


def until_end(text: list[int]) -> list[int]:
    return text[: text.index(END, len(PROMPT))] if END in text[len(PROMPT) :] else text
