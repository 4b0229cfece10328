"""MED equals the published BLIP: losses, matching logits, and the texts of beam search.

Recipe and source of the numbers: ``tests/helpers/golden.py``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.modules.generation import generate
from lavis_lite.modules.med.decoder import GroundedDecoder
from lavis_lite.modules.med.model import Med, MedDecoder

DEC, ENC, SEP, PAD = 30522, 30523, 102, 0


@pytest.fixture
def build(golden: dict, golden_weights: Any, golden_images: Any) -> Any:
    """``build(name, text_key, text)``: the image tokens, ``text`` with its weights, all weights."""

    def make(name: str, text_key: str, text: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        import timm

        entry = golden[name]
        weights = golden_weights(entry["layout"], entry["alias"])
        vit = timm.create_model(
            "vit_base_patch16_224", img_size=64, embed_dim=64, depth=3, num_heads=4, num_classes=0
        ).eval()
        vit.load_state_dict(part(weights, "visual_encoder."))
        text.load_state_dict(part(weights, text_key))
        with torch.no_grad():
            return vit.forward_features(golden_images(2, entry["image_seed"])), weights

    return make


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def med() -> Med:
    return Med(
        width=64, depth=3, num_heads=4, mlp_width=128, vocab_size=30524, encoder_width=64
    ).eval()


def text_batch(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    length = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
    return ids, (ids != PAD).long()


def test_the_caption_loss_is_the_recorded_one(build: Any, golden: dict) -> None:
    decoder, entry = MedDecoder(med()).eval(), golden["caption"]
    tokens, _ = build("caption", "text_decoder.", decoder)
    assert tokens.flatten()[:8].tolist() == pytest.approx(entry["vit_first"], abs=1e-5)
    ids, mask = text_batch(entry["input_ids"])
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :4] = -100  # the prompt "a picture of"
    ids[:, 0] = DEC
    with torch.no_grad():
        logits = decoder(ids, mask, image_kv=decoder.bert.project(tokens))
    loss = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=0.1
    )
    assert loss.item() == pytest.approx(entry["loss"], abs=2e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("beam1", {"num_beams": 1}),
        ("beam3", {"num_beams": 3}),
        ("beam5", {"num_beams": 5}),
        ("beam3_rep", {"num_beams": 3, "min_length": 10, "repetition_penalty": 1.5}),
    ],
)
def test_beam_search_writes_the_recorded_ids(
    build: Any, golden: dict, name: str, options: dict
) -> None:
    decoder, entry = MedDecoder(med()).eval(), golden["caption"]
    tokens, _ = build("caption", "text_decoder.", decoder)
    written = generate(
        GroundedDecoder(decoder, decoder.bert.project(tokens)),
        torch.tensor([[DEC, *entry["input_ids"][0][1:4]]] * 2),
        **{"max_length": 20, "min_length": 5, "eos_id": SEP, "pad_id": PAD, **options},
    )
    assert written == entry[f"{name}_ids"]


@pytest.mark.parametrize(("name", "first"), [("itm_cls", None), ("itm_enc", ENC)])
def test_matching_logits_are_the_recorded_ones(
    build: Any, golden: dict, name: str, first: int | None
) -> None:
    encoder, head, entry = med(), nn.Linear(64, 2), golden["itm"]
    tokens, weights = build("itm", "text_encoder.", encoder)
    head.load_state_dict(part(weights, "itm_head."))
    ids, mask = text_batch(entry["input_ids"])
    if first is not None:
        ids[:, 0] = first
    with torch.no_grad():
        states = encoder(ids, mask, mode="multimodal", image_kv=encoder.project(tokens))
        logits = head(states[:, 0])
    assert logits.flatten().tolist() == pytest.approx(entry[name], abs=2e-5)


def test_the_joint_space_is_the_recorded_one(build: Any, golden: dict) -> None:
    encoder, entry = med(), golden["itm"]
    tokens, weights = build("itm", "text_encoder.", encoder)
    ids, mask = text_batch(entry["input_ids"])
    with torch.no_grad():
        states = encoder(ids, mask, mode="text")
        image, text = (
            F.normalize(F.linear(x[:, 0], weights[f"{k}.weight"], weights[f"{k}.bias"]), dim=-1)
            for x, k in ((tokens, "vision_proj"), (states, "text_proj"))
        )
    assert (image @ text.T).flatten().tolist() == pytest.approx(entry["itc"], abs=1e-5)
