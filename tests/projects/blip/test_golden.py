"""BLIP's models against what the published code computes at a tiny size (helpers/golden.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_lite import create_model
from lavis_lite.checkpoint.weights import load_state

ATOL = 2e-4


def vocabulary(folder: Path, rows: dict[str, list[int]]) -> str:
    """A vocabulary of BERT's size in which the words of the captions have BERT's ids."""
    tokens = [f"[unused{i}]" for i in range(30522)]
    for index, token in {
        0: "[PAD]",
        100: "[UNK]",
        101: "[CLS]",
        102: "[SEP]",
        103: "[MASK]",
    }.items():
        tokens[index] = token
    for caption, ids in rows.items():
        words = caption.replace(",", " ,").replace("!", " !").split()
        for word, index in zip(words, ids[1:-1], strict=True):
            tokens[index] = word
    (folder / "vocab.txt").write_text("\n".join(tokens))
    return str(folder)


def build(name: str, recorded: dict[str, Any], weights: Any, folder: Path, **overrides: Any) -> Any:
    captions = dict(zip(recorded["captions"], recorded["input_ids"], strict=True))
    model = create_model(name, "tiny", tokenizer=vocabulary(folder, captions), **overrides)
    load_state(model, weights(recorded["layout"], recorded.get("alias", {})))
    return model.eval()


def test_captioner_gives_the_published_loss_tokens_and_beams(
    golden: Any, golden_weights: Any, golden_images: Any, tmp_path: Path
) -> None:
    recorded = golden["caption"]
    losses = {"lm": {"name": "lm"}}
    model = build("blip_caption", recorded, golden_weights, tmp_path, losses=losses)
    image = golden_images(2, recorded["image_seed"])
    output = model({"image": image, "text_input": recorded["captions"]})
    assert output.loss_lm.item() == pytest.approx(recorded["loss"], abs=ATOL)
    tokens = model.encode_image(image)
    assert tokens.sum().item() == pytest.approx(recorded["vit_sum"], abs=ATOL)
    ids: list[list[int]] = []
    decode = model.tokenizer.decode
    model.tokenizer.decode = lambda row: ids.append(list(row)) or decode(row)
    model.generate({"image": image}, num_beams=3, max_length=20, min_length=5)
    assert ids == [[t for t in row[4:] if t not in (0, 102)] for row in recorded["beam3_ids"]]


@pytest.mark.parametrize(
    ("head", "first", "name"),
    [("itm", "enc", "itm_enc"), ("itm", "cls", "itm_cls"), ("itc", "enc", "itc")],
)
def test_matching_gives_the_published_scores(
    head: str, first: str, name: str, golden: Any, golden_weights: Any, golden_images: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    recorded = golden["itm"]
    model = build(
        "blip_image_text_matching", recorded, golden_weights, tmp_path,
        embed_width=256, first_token=first,
    )  # fmt: skip
    image = golden_images(2, recorded["image_seed"])
    scores = model({"image": image, "text_input": recorded["captions"]}, match_head=head)
    expected = torch.tensor(recorded[name]).view(2, 2)
    torch.testing.assert_close(scores.detach(), expected, atol=ATOL, rtol=0)


def test_pretraining_follows_the_published_trajectory_for_three_steps(
    golden: Any, golden_weights: Any, golden_images: Any, tmp_path: Path
) -> None:
    recorded = golden["pretrain"]
    model = build("blip_pretrain", recorded, golden_weights, tmp_path)
    model.losses["itc"].ramp = 1.0
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for step, (seed, alpha) in enumerate(
        zip(recorded["image_seeds"], recorded["alpha"], strict=True)
    ):
        samples = {"image": golden_images(2, seed), "text_input": recorded["captions"]}
        output = model(samples | {"progress": alpha / 0.4, "step": step})
        losses = [output.loss_itc.item(), output.loss_itm.item(), output.loss_lm.item()]
        assert losses == pytest.approx(recorded["losses_ita_itm_lm"][step], abs=ATOL)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    queue = model.losses["itc"].queue
    assert queue.queue_ptr.item() == recorded["ptr"]
    corner = queue.image_queue[:3, :6].flatten()
    torch.testing.assert_close(corner, torch.tensor(recorded["queue_after"]), atol=ATOL, rtol=0)
    momentum = model.visual_encoder_m.blocks[0].attn.qkv.weight.sum().item()
    assert momentum == pytest.approx(recorded["vision_m_after"], abs=ATOL)


def test_tying_shares_exactly_what_the_published_model_shares(golden: Any) -> None:
    model = create_model("blip_pretrain", "tiny")
    encoder = dict(model.text_encoder.named_parameters(remove_duplicate=False))
    shared = {id(p) for p in model.text_decoder.parameters()}
    assert sorted(k for k, p in encoder.items() if id(p) in shared) == golden["pretrain"]["tied"]


def test_base_size_has_the_published_number_of_trainable_parameters(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = create_model("blip_pretrain", "base", tokenizer=vocabulary(tmp_path, {}))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert round(trained / 1e6, 1) == 252.4
    encoder = dict(model.text_encoder.named_parameters(remove_duplicate=False))
    shared = {id(p) for p in model.text_decoder.parameters()}
    tied = [k for k, p in encoder.items() if id(p) in shared]
    own = [k for k, p in encoder.items() if id(p) not in shared]
    own += [
        k
        for k, p in model.text_decoder.bert.named_parameters(remove_duplicate=False)
        if id(p) not in {id(q) for q in encoder.values()}
    ]
    assert (len(tied), len(own)) == (196, 240)
    assert all(".attention." in key for key in own)
