"""Calls that cannot be answered say so at once, and in the caller's words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bench_models import CAPTIONS, batch, bench_model

from lavis_lite import create_model
from lavis_lite.errors import ConfigError
from lavis_lite.models import retrieval


@pytest.mark.parametrize("name", ["blip_caption", "blip_pretrain"])
def test_a_text_longer_than_the_tower_is_refused_before_the_first_step(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bench_model(name)  # 64 positions
    image = {"image": batch(1)["image"]}
    assert len(model.generate(image, max_length=64, min_length=64, method="greedy")) == 1
    monkeypatch.setattr(model, "encode_image", None)  # not even the image is read
    with pytest.raises(ConfigError, match=r"max_length: 65; the text tower has 64 positions"):
        model.generate(image, max_length=65)


def test_too_many_captions_are_refused_in_words_of_both_callers() -> None:
    model = bench_model("blip_caption")
    with pytest.raises(ConfigError, match=r"texts per image: 4; from 1 to 3 .*3 beams"):
        model.generate({"image": batch(1)["image"]}, num_captions=4)


def test_texts_that_do_not_go_with_the_images_are_refused() -> None:
    model = bench_model("blip_image_text_matching").eval()
    samples = {**batch(2), "text_input": CAPTIONS[:4]}
    with pytest.raises(ConfigError, match="match: 4 texts for 2 images; it takes one for each"):
        model(samples)
    with pytest.raises(ConfigError, match="match: 1 texts for 2 images"):
        model({**samples, "text_input": CAPTIONS[:1]})
    assert model(samples, match_head="itc").shape == (2, 4)
    tokens = model.encode_image(samples["image"])
    assert model.rank(tokens, model.tokenize(CAPTIONS[:4])).shape == (2, 2)
    for texts in ([CAPTIONS[:1], CAPTIONS[:3]], [CAPTIONS[:2]], model.tokenize(CAPTIONS[:3])):
        with pytest.raises(ConfigError, match=r"rank: \d texts for 2 images; it takes the same"):
            model.rank(tokens, texts)


def test_one_list_of_texts_is_ranked_for_every_image_and_no_image_is_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = bench_model("blip_image_text_matching").eval()
    with torch.no_grad():
        tokens = model.encode_image(batch(2)["image"])
        each = [[model.match(t[None], [c])[0, 1].item() for c in CAPTIONS] for t in tokens]
    projected = []
    project = model.text_encoder.project
    monkeypatch.setattr(
        model.text_encoder, "project", lambda x: (projected.append(len(x)), project(x))[1]
    )
    with torch.no_grad():
        for scores in (model.rank(tokens, CAPTIONS), model.rank(tokens, [CAPTIONS, CAPTIONS])):
            torch.testing.assert_close(scores, torch.tensor(each), atol=1e-4, rtol=1e-4)
    assert projected == [2, 2]


def test_a_captioner_s_ids_are_scored_as_lavis_asks_for_it() -> None:
    model = bench_model("blip_image_text_matching").eval()
    tokens = model.encode_image(batch(2)["image"])
    written = model.tokenizer.encode([f"x y z {text}" for text in CAPTIONS[:2]], 30)
    for head in ("itm", "itc"):
        scores = model.itm_rank(tokens, None, written.ids, match_head=head)
        expected = model({**batch(2), "text_input": CAPTIONS[:2]}, match_head=head)
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"match_head: 'cosine' is not .*Values: itm, itc"):
        model.itm_rank(tokens, None, written.ids, match_head="cosine")


@pytest.mark.parametrize("name", ["blip_caption", "blip_pretrain"])
def test_an_image_of_another_size_is_refused_by_an_encoder_of_one_size(name: str) -> None:
    model = create_model(name, "tiny")
    with pytest.raises(ConfigError, match=r"image: 64 x 48 pixels; .* takes 64 x 64"):
        model.encode_image(torch.zeros(1, 3, 64, 48))


@pytest.mark.parametrize(
    "vision",
    [
        {"name": "timm/test_vit", "dynamic_img_size": True},
        {"name": "timm/test_convnext"},
    ],
    ids=lambda vision: vision["name"],
)
def test_an_encoder_of_any_size_takes_any(vision: dict[str, Any]) -> None:
    model = create_model("blip_retrieval", "tiny", vision=vision)
    assert model.encode_image(torch.zeros(1, 3, 96, 64)).shape[0] == 1


def test_ranking_side_by_side_gives_what_each_pair_gives_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = create_model("blip_image_text_matching", "tiny").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        tokens = model.encode_image(torch.randn(2, 3, 64, 64))
        texts = [" ".join(["red circle blue"] * (1 + 5 * n % 7)) + f" {n}" for n in range(12)]
        each = [[model.match(t[None], [c])[0, 1] for c in texts] for t in tokens]
        expected = torch.tensor(each)
        seen = []
        read = model.text_tower.forward
        monkeypatch.setattr(
            model.text_tower, "forward", lambda ids, *a, **k: seen.append(ids) or read(ids, *a, **k)
        )
        for at_once in (10_000, 100):
            monkeypatch.setattr(retrieval, "TOKENS_AT_ONCE", at_once)
            torch.testing.assert_close(model.rank(tokens, texts), expected, rtol=0, atol=1e-5)
        assert len(seen) > 2  # the second time in parts
        assert len(seen[0]) < 2 * len(texts)  # several to a row
        # Their order, and what else is asked for, do not matter.
        turned = model.rank(tokens.flip(0), [texts[::-1]] * 2)
        torch.testing.assert_close(turned, expected.flip(0, 1), rtol=0, atol=1e-5)
        few = model.rank(tokens, [texts[:3], texts[3:6]])
        chosen = torch.stack([expected[0, :3], expected[1, 3:6]])
        torch.testing.assert_close(few, chosen, rtol=0, atol=1e-5)
    assert expected.std() > 0.01


def test_no_texts_have_no_scores() -> None:
    model = bench_model("blip_image_text_matching").eval()
    with torch.no_grad():
        tokens = model.encode_image(batch(2)["image"])
        assert model.rank(tokens, [[], []]).shape == (2, 0)
