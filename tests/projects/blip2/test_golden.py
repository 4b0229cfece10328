"""BLIP-2's first stage against what the published code computes at a tiny size.

salesforce/LAVIS at 506965b ran (torch 2.0.1, fp32, CPU, ``eval()``, a process group of one) on the
weights of ``tests/helpers/golden.py``, whose recipe fills these layouts too; its numbers are in
``golden/blip2_tiny.json``. Q-Former: width 64, 4 layers, 4 heads, feed-forward 128, cross-attention
in layers 0 and 2, 8 queries, 30,523 words, joint width 32. ``qformer`` has no vision tower: its
images are tokens (n, 17, 48), normal numbers; ``eva`` has a tiny EVA tower and images of 56 pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lavis_lite import create_model, registry
from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.projects.blip2.matching import Blip2ITM

NUMBERS = json.loads((Path(__file__).parents[2] / "golden" / "blip2_tiny.json").read_text())
ENTRIES = ("qformer", "eva")
TOLERANCE = {"rtol": 2e-4, "atol": 2e-4}
Weights = Callable[[dict[str, list[int]], dict[str, str]], dict[str, Tensor]]


class Tokens(nn.Identity):
    """A vision encoder whose images are tokens already."""

    width = 48


def vocabulary(folder: Path) -> str:
    """A vocabulary of BERT's size in which the words of the captions have BERT's ids."""
    tokens = [f"[unused{number}]" for number in range(30522)]
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    for number, token in special.items():
        tokens[number] = token
    recorded = NUMBERS["qformer"]
    for caption, ids in zip(recorded["captions"], recorded["input_ids"], strict=True):
        words = caption.replace(",", " ,").replace("!", " !").split()
        for word, number in zip(words, ids[1:-1], strict=True):
            tokens[number] = word
    (folder / "vocab.txt").write_text("\n".join(tokens))
    return str(folder)


def build(entry: str, weights: Weights, folder: Path, name: str = "blip2", **changes: Any) -> Any:
    """The model of an entry, with its weights under the published names."""
    model: Any = create_model(name, "tiny", tokenizer=vocabulary(folder), **changes)
    if entry == "qformer":
        model.visual_encoder = Tokens()
    recorded = NUMBERS[entry]
    report = load_state(model, weights(recorded["layout"], recorded["alias"]))
    assert report.complete
    assert report.converted == ["query_tokens -> Qformer.query_tokens"]
    return model.eval()


def samples(entry: str) -> dict[str, Any]:
    recorded = NUMBERS[entry]
    shape = (2, 17, 48) if entry == "qformer" else (2, 3, 56, 56)
    seed = recorded["token_seed" if entry == "qformer" else "image_seed"]
    numbers = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    return {"image": torch.from_numpy(np.float32(numbers)), "text_input": recorded["captions"]}


def close(ours: Tensor, recorded: Any) -> None:
    theirs = torch.tensor(recorded)
    torch.testing.assert_close(ours.detach().reshape(theirs.shape), theirs, **TOLERANCE)


@torch.no_grad()
def features(model: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
    """The features of a batch in the three modes; not by a call that refuses what is no image."""
    tokens = model.encode_image(batch["image"])
    context = model.image_context(tokens)
    text = model.tokenize(batch["text_input"])
    states = model.encode_text(text)
    return {
        "image": context.states,
        "image_proj": model.context_features(context),
        "text": states,
        "text_proj": model.text_features(states),
        "multimodal": model.Qformer.query_states(tokens, text),
    }


@pytest.mark.parametrize("entry", ENTRIES)
def test_features_are_the_published_ones(
    entry: str, golden_weights: Weights, tmp_path: Path
) -> None:
    model = build(entry, golden_weights, tmp_path)
    found, recorded = features(model, samples(entry)), NUMBERS[entry]["features"]
    close(found["image"].sum((1, 2)), recorded["image_embeds_sum"])
    close(found["image_proj"][0], recorded["image_embeds_proj_of_0"])
    close(found["multimodal"].sum((1, 2)), recorded["multimodal_embeds_sum"])
    if entry == "qformer":
        close(found["image"][0], recorded["image_embeds_of_0"])
        close(found["text"][:, 0], recorded["text_embeds_cls"])
        close(found["text_proj"], recorded["text_embeds_proj_cls"])
        close(found["multimodal"][0, :, :8], recorded["multimodal_embeds_of_0"])
        assert list(found["text"].shape) == recorded["text_embeds_shape"]
        assert list(found["multimodal"].shape) == recorded["multimodal_embeds_shape"]


def test_the_calls_of_lavis_return_the_published_features(
    golden_weights: Weights, tmp_path: Path
) -> None:
    model, batch = build("eva", golden_weights, tmp_path), samples("eva")
    recorded = NUMBERS["eva"]["features"]
    image = model.extract_features(batch, mode="image")
    close(image.image_embeds.sum((1, 2)), recorded["image_embeds_sum"])
    close(image.image_embeds_proj[0], recorded["image_embeds_proj_of_0"])
    both = model.extract_features(batch)
    close(both.multimodal_embeds.sum((1, 2)), recorded["multimodal_embeds_sum"])
    assert (both.image_embeds, both.text_embeds) == (None, None)
    states, tokens = model.forward_image(batch["image"])
    close(states.sum((1, 2)), recorded["image_embeds_sum"])
    close(tokens[0, 0], NUMBERS["eva"]["ln_vision_cls_0"])
    text = model.tokenizer(batch["text_input"], padding=True, return_tensors="pt")
    alone = model.extract_features(batch, mode="text")
    torch.testing.assert_close(model.forward_text(text), alone.text_embeds[:, 0])
    logits = model.compute_itm(tokens, text.input_ids, text.attention_mask)
    close(logits, [row[1] for row in NUMBERS["eva"]["pairs"]["itm"]][::3])


@pytest.mark.parametrize("entry", ENTRIES)
def test_pairs_have_the_published_logits_and_cosines(
    entry: str, golden_weights: Weights, tmp_path: Path
) -> None:
    model = build(entry, golden_weights, tmp_path, "blip2_image_text_matching")
    recorded, batch = NUMBERS[entry]["pairs"], samples(entry)
    texts = batch["text_input"]
    tokens = model.encode_image(batch["image"])
    each = [model.match(tokens[row : row + 1], [text]) for row in range(2) for text in texts]
    close(torch.cat(each), recorded["itm"])
    ranked = model.rank(tokens, texts)
    close(ranked, [row[1] for row in recorded["itm"]])
    if entry == "qformer":
        close(ranked, NUMBERS[entry]["rerank_itm"])
    image = model.image_features(tokens)
    text = model.text_features(model.encode_text(texts))
    close(torch.einsum("iqe,te->itq", image, text), recorded["cosines"])


def test_matching_returns_one_score_for_each_pair(golden_weights: Weights, tmp_path: Path) -> None:
    model = build("eva", golden_weights, tmp_path, "blip2_image_text_matching")
    recorded, batch = NUMBERS["eva"]["pairs"], samples("eva")
    close(model(batch), recorded["itm"][::3])
    cosines = model(batch, match_head="itc")
    assert cosines.shape == (2, 1)
    close(cosines[:, 0], [recorded["itc"][0][0], recorded["itc"][1][1]])
    assert isinstance(model, Blip2ITM)


@pytest.mark.parametrize("entry", ENTRIES)
def test_losses_are_the_published_ones(entry: str, golden_weights: Weights, tmp_path: Path) -> None:
    model = build(entry, golden_weights, tmp_path)
    output = model(samples(entry))
    losses = [output.loss, output.loss_itc, output.loss_itm, output.loss_lm]
    close(torch.stack(losses), NUMBERS[entry]["losses_sum_itc_itm_lm"])
    if entry == "qformer":  # with a batch of two each negative is the only other sample
        close(output.intermediate_output.itm_logits, NUMBERS[entry]["itm_rows"])


@pytest.mark.parametrize("loss", ["itc", "itm", "lm"])
def test_gradients_are_the_published_ones(
    loss: str, golden_weights: Weights, tmp_path: Path
) -> None:
    model = build("qformer", golden_weights, tmp_path)
    model(samples("qformer")).losses[loss].backward()
    own = dict(model.named_parameters())
    for name, recorded in NUMBERS["qformer"]["gradients"][f"loss_{loss}"].items():
        gradient = own["Qformer.query_tokens" if name == "query_tokens" else name].grad
        found = 0.0 if gradient is None else gradient.abs().mean().item()
        assert found == pytest.approx(recorded, rel=1e-3, abs=1e-12), name


def test_contrast_that_trains_its_columns_has_other_gradients(
    golden_weights: Weights, tmp_path: Path
) -> None:
    losses = {"itc": {"column_gradients": True}, "itm": None, "lm": None}
    model = build("qformer", golden_weights, tmp_path, losses=losses)
    model(samples("qformer")).loss.backward()
    found = model.vision_proj.weight.grad.abs().mean().item()
    recorded = NUMBERS["qformer"]["gradients"]["loss_itc"]["vision_proj.weight"]
    assert abs(found / recorded - 1) > 0.1


def test_next_words_have_the_published_logits(golden_weights: Weights, tmp_path: Path) -> None:
    model, batch = build("qformer", golden_weights, tmp_path), samples("qformer")
    recorded, text = NUMBERS["qformer"], model.tokenize(batch["text_input"])
    assert text.replace_first(model.tokenizer.bos_id).ids.tolist() == recorded["lm_input_ids"]
    context = model.image_context(model.encode_image(batch["image"]))
    logits = model.decode_logits(context, text)
    close(logits[:, :3, 1000:1006], recorded["lm_logits"])


@pytest.mark.parametrize(
    ("entry", "name", "beams"),
    [
        ("qformer", "greedy", 1),
        ("qformer", "beam3", 3),
        ("qformer", "beam5", 5),
        ("eva", "greedy", 1),
        ("eva", "beam3", 3),
    ],
)
def test_written_ids_are_the_published_ones(
    entry: str, name: str, beams: int, golden_weights: Weights, tmp_path: Path
) -> None:
    model, batch = build(entry, golden_weights, tmp_path), samples(entry)
    written: list[list[int]] = []
    decode = model.tokenizer.decode
    model.tokenizer.decode = lambda row: written.append(list(row)) or decode(row)
    tokens = {"image_tokens": model.encode_image(batch["image"])}
    model.generate(tokens, num_beams=beams, max_length=20, min_length=5)
    assert written == [row[1:] for row in NUMBERS[entry][name]["ids"]]


def test_the_published_size_has_the_published_number_of_trained_weights(tmp_path: Path) -> None:
    spec = {"name": "qformer"}
    with torch.device("meta"):
        for width, millions in ((1408, 186.7), (1024, 183.2)):
            qformer = registry.build("text_backbone", spec, vocab_size=30523, encoder_width=width)
            heads = 2 * (768 * 256 + 256) + (768 * 2 + 2)
            trained = sum(p.numel() for p in qformer.parameters()) + heads + 2 * width + 1
            assert trained / 1e6 == pytest.approx(millions, abs=0.05)
