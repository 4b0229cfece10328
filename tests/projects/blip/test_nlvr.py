"""Statements about two images: doubled cross-attention, training, the same answer every time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.losses.shared import Shared

STATEMENTS = [
    "both images have a cross",
    "there are exactly two small blue circles in the left image and none in the right one",
    "nothing",
    "one image shows a star",
]


def pairs(count: int = 4, seed: int = 0, **extra: Any) -> dict[str, Any]:
    images = torch.randn(2, count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    label = torch.arange(count) % 2
    texts = [STATEMENTS[i % 4] for i in range(count)]
    return {"image0": images[0], "image1": images[1], "text_input": texts, "label": label, **extra}


def strong(**overrides: Any) -> Any:
    torch.manual_seed(0)
    model = create_model("blip_nlvr", "tiny", **overrides)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
        for layer in model.text_encoder.encoder:  # the halves start equal: let them differ
            for name in ("self1.query", "self1.value", "output.dense1"):
                layer.crossattention.get_submodule(name).weight.normal_(std=0.2)
    return model.eval()


# ---- what it computes


def attention(heads: Any, x: Tensor, source: Tensor) -> Tensor:
    """Attention of (T, D) to (N, D), head by head."""
    out = []
    size = x.shape[1] // heads.num_heads
    query, key, value = heads.query(x), heads.key(source), heads.value(source)
    for head in range(heads.num_heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / size**0.5
        out.append(scores.softmax(-1) @ value[:, part])
    return torch.cat(out, dim=1)


def by_hand(model: Any, first: Tensor, second: Tensor, statement: str) -> Tensor:
    """The logits of one pair, layer by layer as the published code does it, without padding."""
    tower = model.text_encoder
    tokens = [model.visual_encoder(image[None])[0] for image in (first, second)]
    ids = model.tokenizer.encode([statement], 64).ids[0]
    ids[0] = model.tokenizer.enc_id
    places = tower.embeddings.position_embeddings.weight[: len(ids)]
    x = tower.embeddings.LayerNorm(tower.embeddings.word_embeddings(ids) + places)
    for number, layer in enumerate(tower.encoder):
        own = attention(layer.attention.self, x, x)
        x = layer.attention.output.LayerNorm(layer.attention.output.dense(own) + x)
        cross = layer.crossattention
        found = [
            cross.output.dense0(attention(cross.self0, x, tokens[0])),
            cross.output.dense1(attention(cross.self1, x, tokens[1])),
        ]
        if number >= 1:  # `merge_from` of the tiny type
            both = cross.output.merge_layer(torch.cat(found, dim=1))
        else:
            both = (found[0] + found[1]) / 2
        x = cross.output.LayerNorm(both + x)
        inner = F.gelu(layer.intermediate["dense"](x))
        x = layer.output.LayerNorm(layer.output.dense(inner) + x)
    head = model.cls_head
    return head[2](torch.relu(head[0](x[0])))


def test_the_logits_are_those_of_the_published_description() -> None:
    model, batch = strong(), pairs()
    with torch.no_grad():
        expected = torch.stack(
            [
                by_hand(model, *row)
                for row in zip(batch["image0"], batch["image1"], STATEMENTS, strict=True)
            ]
        )
        found = model.predict(batch)
    torch.testing.assert_close(found["predictions"], expected, atol=1e-5, rtol=1e-4)
    assert found["targets"].equal(batch["label"])


def test_only_layers_from_the_sixth_on_merge_by_weights() -> None:
    model = create_model("blip_nlvr", "tiny", text={"depth": 8, "width": 16}, merge_from=6)
    merging = [key for key in model.state_dict() if key.endswith("merge_layer.weight")]
    assert [key.split(".")[3] for key in merging] == ["6", "7"]
    assert model.state_dict()[merging[0]].shape == (16, 32)


def test_the_order_of_the_images_matters() -> None:
    model, batch = strong(), pairs()
    swapped = batch | {"image0": batch["image1"], "image1": batch["image0"]}
    first, second = (model.predict(b)["predictions"] for b in (batch, swapped))
    assert (first - second).abs().max() > 1e-3


def test_both_halves_start_as_the_attention_to_one_image() -> None:
    model = create_model("blip_nlvr", "tiny")
    for layer in model.text_encoder.encoder:
        cross = layer.crossattention
        assert cross.self0.key.weight.equal(cross.self1.key.weight)
        assert cross.output.dense0.weight.equal(cross.output.dense1.weight)
        assert cross.self0.key.weight.data_ptr() != cross.self1.key.weight.data_ptr()


# ---- evaluation


def test_a_prediction_is_the_same_every_time_in_any_mode() -> None:
    model, batch = strong(text={"dropout": 0.5}).train(), pairs()
    first = model.predict(batch)["predictions"]
    assert model.training
    assert all(model.predict(batch)["predictions"].equal(first) for _ in range(3))
    assert not first.requires_grad


def test_a_prediction_does_not_depend_on_batch_or_padding() -> None:
    model, batch = strong(), pairs(8)
    together = model.predict(batch)["predictions"]
    for row in range(8):
        alone = {key: value[row : row + 1] for key, value in batch.items()}
        torch.testing.assert_close(
            model.predict(alone)["predictions"][0], together[row], atol=1e-5, rtol=0
        )
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_pairs_without_labels_or_with_one_statement_are_predicted() -> None:
    model, batch = strong(), pairs(2)
    found = model.predict(
        {"image0": batch["image0"], "image1": batch["image1"], "text_input": STATEMENTS[0]}
    )
    assert found["targets"] is None
    assert found["predictions"].shape == (2, 2)
    with pytest.raises(ConfigError, match="text_input: 3 texts for 2 images"):
        model.predict(batch | {"text_input": STATEMENTS[:3]})
    with pytest.raises(ConfigError, match="samples have no 'image1'"):
        model.predict({"image0": batch["image0"], "text_input": STATEMENTS[0]})


# ---- training


def test_the_loss_is_the_cross_entropy_and_every_parameter_learns() -> None:
    model, batch = strong(), pairs()
    output = model(batch)
    logits = model.predict(batch)["predictions"]
    assert output.loss.item() == pytest.approx(F.cross_entropy(logits, batch["label"]).item())
    output.loss.backward()
    assert [k for k, p in model.named_parameters() if p.grad is None] == []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(batch).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < output.loss.item() - 0.1


def test_labels_may_come_as_a_list_or_truth_values_and_must_come() -> None:
    model, batch = strong(), pairs()
    expected = model(batch).loss
    for label in (batch["label"].tolist(), batch["label"].bool()):
        assert model(batch | {"label": label}).loss.equal(expected)
    del batch["label"]
    with pytest.raises(DataError, match="no `label`"):
        model(batch)


def test_it_distils_when_asked_to() -> None:
    model, batch = strong(use_distill=True, momentum=0.5), pairs(progress=1.0)
    with torch.no_grad():
        model.cls_head_m[2].weight.zero_()
        model.cls_head_m[2].bias.copy_(torch.tensor([0.0, 2.0]))
        logits = model.predict(batch)["predictions"]
        opinion = Shared(model, batch).momentum.class_logits
        assert opinion.equal(torch.tensor([[0.0, 2.0]] * 4))
        found = model(batch)
    true = F.cross_entropy(logits, batch["label"])
    soft = F.cross_entropy(logits, opinion.softmax(1))
    assert found.loss.item() == pytest.approx((0.6 * true + 0.4 * soft).item(), rel=1e-5)
