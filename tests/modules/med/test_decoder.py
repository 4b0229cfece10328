"""The cache: every step's logits are those of reading the whole text anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lavis_lite.modules.med.attention import select
from lavis_lite.modules.med.cache import Cache
from lavis_lite.modules.med.decoder import GroundedDecoder
from lavis_lite.modules.med.model import Med, MedDecoder


@pytest.fixture
def decoder() -> MedDecoder:
    model = MedDecoder(
        Med(
            width=16, depth=2, num_heads=2, mlp_width=24, vocab_size=30, encoder_width=12,
            max_length=20,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("num_texts", [1, 3])
@pytest.mark.parametrize("prompt_length", [1, 4])
def test_steps_that_reorder_and_drop_images_equal_reading_anew(
    decoder: MedDecoder, num_texts: int, prompt_length: int
) -> None:
    kv = decoder.bert.project(torch.randn(4, 5, 12))
    mask = torch.arange(5) < torch.tensor([5, 2, 3, 5])[:, None]
    session, rows = GroundedDecoder(decoder, kv, mask), torch.arange(4)
    prompt = torch.randint(1, 30, (4, prompt_length))
    tokens = prompt[:, None].expand(-1, num_texts, -1)  # (B, K, L)

    def anew(tokens: Tensor) -> Tensor:
        images = select(kv, rows)
        logits = decoder(tokens.flatten(0, 1), image_kv=images, image_mask=mask[rows])
        return logits[:, -1].unflatten(0, tokens.shape[:2])

    first = session.start(prompt, num_texts, 12)
    torch.testing.assert_close(first[:, None], anew(prompt[:, None]), rtol=0, atol=5e-6)
    for step in range(12 - prompt_length - 1):
        new = torch.randint(1, 30, tokens.shape[:2])
        parents = torch.randint(0, num_texts, tokens.shape[:2])
        tokens = tokens.gather(1, parents[..., None].expand_as(tokens))
        tokens = torch.cat([tokens, new[..., None]], dim=-1)
        logits = session.step(new, None if num_texts == 1 else parents)
        torch.testing.assert_close(logits, anew(tokens), rtol=0, atol=5e-6)
        if step in (2, 4):
            going = torch.tensor([2, 0]) if step == 2 else torch.tensor([1])
            session.keep(going)
            rows, tokens = rows[going], tokens[going]


@torch.no_grad()
def test_the_image_and_the_prompt_are_held_once_per_image(decoder: MedDecoder) -> None:
    kv = decoder.bert.project(torch.randn(2, 5, 12))
    session = GroundedDecoder(decoder, kv)
    session.start(torch.ones(2, 4).long(), 3, 10)
    session.step(torch.ones(2, 3).long())
    cache = session._cache
    assert torch.equal(session._image_kv[0].key, kv[0].key)  # as many rows as images
    assert cache._layers[0].stored.key.shape == (2, 2, 4 + 3 * 6, 8)
    assert (cache.position, cache._used) == (5, 7)


@torch.no_grad()
def test_reordering_moves_no_keys(decoder: MedDecoder) -> None:
    session = GroundedDecoder(decoder, decoder.bert.project(torch.randn(2, 5, 12)))
    session.start(torch.ones(2, 2).long(), 3, 10)
    session.step(torch.randint(1, 30, (2, 3)))
    before = session._cache._layers[0].stored.key[:, :, :5].clone()
    session.step(torch.randint(1, 30, (2, 3)), torch.tensor([[2, 0, 0], [1, 1, 1]]))
    assert torch.equal(session._cache._layers[0].stored.key[:, :, :5], before)


@torch.no_grad()
def test_a_cache_that_is_full_says_so(decoder: MedDecoder) -> None:
    kv = decoder.bert.project(torch.randn(1, 5, 12))
    with pytest.raises(AssertionError, match="a cache of 2 slots cannot take 3"):
        decoder(torch.ones(1, 3).long(), image_kv=kv, cache=Cache(2))
