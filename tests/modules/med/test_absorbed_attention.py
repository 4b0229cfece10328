"""Attending to image tokens that are not projected: the same numbers as with keys and values."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lavis_lite.modules.generation import generate
from lavis_lite.modules.med.absorbed_attention import AbsorbedProjections, absorption_pays
from lavis_lite.modules.med.attention import Heads, attend, compact, select
from lavis_lite.modules.med.decoder import GroundedDecoder
from lavis_lite.modules.med.model import Med, MedDecoder

WIDTH, SOURCE_WIDTH, NUM_TOKENS = 16, 12, 50


@pytest.fixture
def med() -> Med:
    torch.manual_seed(0)
    tower = Med(
        width=WIDTH, depth=2, num_heads=2, mlp_width=32, vocab_size=40, encoder_width=SOURCE_WIDTH
    )
    for parameter in tower.parameters():  # biases too, and scores that differ
        torch.nn.init.normal_(parameter, std=0.3)
    return tower.eval()


def heads(bias: bool = True) -> Heads:
    torch.manual_seed(0)
    layer = Heads(WIDTH, 2, SOURCE_WIDTH).double()
    if not bias:
        layer.value.bias = None
    return layer


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("texts", [1, 3])
def test_attention_to_tokens_is_attention_to_their_keys_and_values(texts: int, bias: bool):
    layer, tokens = heads(bias), torch.randn(2, 5, SOURCE_WIDTH).double()
    query = torch.randn(2 * texts, 4, WIDTH).double()
    mask = torch.rand(2, 1, 1, 5) > 0.3
    mask[..., 0] = True
    for visible in (None, mask):
        exact = attend(query, layer.project(tokens), visible, False, 0.0)
        found = attend(query, layer.absorbed(tokens), visible, False, 0.0)
        torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_only_few_queries_look_at_tokens_and_never_with_gradients(med: Med):
    tokens = torch.randn(2, NUM_TOKENS, SOURCE_WIDTH)

    def kinds(num_queries: int) -> list[bool]:
        return [
            isinstance(source, AbsorbedProjections)
            for source in med.image_context(tokens, num_queries)
        ]

    assert kinds(2) == [True, True]
    assert kinds(40) == [False, False]
    with torch.enable_grad():
        assert kinds(2) == [False, False]
    assert not absorption_pays(tokens.to("meta"), WIDTH, 2, 2)
    assert not absorption_pays(tokens, WIDTH, 2, 2, num_steps=2)  # for so few images
    assert absorption_pays(torch.cat([tokens, tokens]), WIDTH, 2, 2, num_steps=2)
    med.train()  # attention weights are dropped
    assert kinds(2) == [False, False]


class Adapted(torch.nn.Module):
    """As LoRA wraps a layer: `weight` is the layer's own, the output is not."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.layer, self.weight, self.bias = layer, layer.weight, layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + 1


@torch.no_grad()
@pytest.mark.parametrize("name", ["key", "value"])
def test_what_an_adapter_adds_and_a_hook_sees_is_not_passed_by(med: Med, name: str):
    tokens, own = torch.randn(2, NUM_TOKENS, SOURCE_WIDTH), med.fusion_layers[1].crossattention.self
    hook = getattr(own, name).register_forward_hook(lambda *_: None)
    assert not any(
        isinstance(source, AbsorbedProjections) for source in med.image_context(tokens, 2)
    )
    hook.remove()
    assert all(isinstance(source, AbsorbedProjections) for source in med.image_context(tokens, 2))
    setattr(own, name, Adapted(getattr(own, name)))
    assert not any(
        isinstance(source, AbsorbedProjections) for source in med.image_context(tokens, 2)
    )


@torch.no_grad()
def test_a_text_read_with_unprojected_tokens_has_the_same_states(med: Med):
    tokens, ids = torch.randn(2, NUM_TOKENS, SOURCE_WIDTH), torch.randint(40, (4, 3))
    seen = med.image_context(tokens, 2)
    assert isinstance(seen[0], AbsorbedProjections)
    exact = med(ids, mode="multimodal", image_kv=med.project(tokens))
    torch.testing.assert_close(
        med(ids, mode="multimodal", image_kv=seen), exact, rtol=1e-5, atol=1e-5
    )
    with torch.autocast("cpu", torch.bfloat16):
        half = med.image_context(tokens, 2)
        found = med(ids, mode="multimodal", image_kv=half)
        same_format = med(ids, mode="multimodal", image_kv=med.project(tokens))
    assert half[0].source.dtype == torch.bfloat16
    # As far from fp32 as keys and values in half precision are.
    error, usual = (float((x - exact).abs().max()) for x in (found, same_format))
    assert error < 3 * usual


@torch.no_grad()
def test_texts_written_from_unprojected_tokens_are_the_same_also_when_images_leave(med: Med):
    decoder = MedDecoder(med).eval()
    tokens = torch.randn(6, NUM_TOKENS, SOURCE_WIDTH)
    sources = (med.project(tokens), med.image_context(tokens, 2))
    written = [
        generate(
            GroundedDecoder(decoder, source),
            torch.ones(6, 1, dtype=torch.long),
            method="nucleus",
            max_length=12,
            temperature=20.0,
            eos_id=3,
            pad_id=0,
            seeds=list(range(6)),
        )
        for source in sources
    ]
    assert written[0] == written[1]
    assert len({len(text) for text in written[0]}) > 1, "some ended before others"


@torch.no_grad()
def test_rows_are_chosen_once_for_all_layers(med: Med):
    seen = med.image_context(torch.randn(3, NUM_TOKENS, SOURCE_WIDTH), 2)
    chosen = select(compact(seen), torch.tensor([2, 0]))
    assert chosen[0].source.equal(seen[0].source[[2, 0]])
    assert all(one.source is other.source for one, other in pairwise(chosen))
