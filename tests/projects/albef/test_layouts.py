"""Files in the published layouts load whole, and compute what the published code computes."""

from __future__ import annotations

from typing import Any

import albef_files as published
import pytest
import torch
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.errors import CheckpointError
from lavis_lite.losses.answers import answer_losses
from lavis_lite.registry import cards
from lavis_lite.registry.weight_cards import weight_cards

CARDS = {
    card.layout: card
    for card in weight_cards().values()
    if any(name.startswith("albef_") for name in (*card.fills, *card.starts))
}
CAPTIONS = ["a cross", "two red squares above a large blue circle", "nothing", "a star"]
TEXT = [None] * published.FUSION
FUSING = published.DEPTH - published.FUSION


def load(kind: str, name: str | None = None, **overrides: Any) -> tuple[Any, dict[str, Tensor]]:
    held = published.file(kind)
    model = create_model(name or f"albef_{kind}", "tiny", **overrides).eval()
    report = load_state(model, held, source=kind)
    assert report.complete
    assert report.loaded == report.total
    return model, held


def rows(model: Any, texts: list[str]) -> list[Tensor]:
    return [model.tokenizer.encode([text], 64).ids[0] for text in texts]


def images(count: int = len(CAPTIONS)) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(7))


# ---- which file fits which model


def test_the_cards_name_every_layout_once_and_models_that_exist() -> None:
    assert set(CARDS) == {"pretrain", "retrieval", "vqa", "nlvr", "two_images", "classification"}
    assert {name for card in CARDS.values() for name in (*card.fills, *card.starts)} == set(
        cards.list_models("albef_*")
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, card in CARDS.items() for name in (*card.fills, *card.starts)],
)
def test_a_file_loads_into_every_model_of_its_card(
    kind: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, held = load(kind, name)
    starts_anew = name in CARDS[kind].starts and name != "albef_vqa"
    assert ("start anew" in caplog.text) == starts_anew
    own = model.state_dict()
    for key in ("visual_encoder.blocks.1.attn.qkv.weight", "visual_encoder.norm.bias"):
        assert own[key].equal(held[key])
    place = "crossattention.output.dense.weight"
    last = max(k for k in held if k.startswith("text_encoder.") and k.endswith(place))
    assert (
        model.text_tower.fusion_layers[-1]
        .get_submodule(place.removesuffix(".weight"))
        .weight.equal(held[last])
    )


def test_an_answer_decoder_starts_as_the_layers_that_look_at_images() -> None:
    model, held = load("pretrain", "albef_vqa")
    for m in ("", "_m"):
        decoder = getattr(model, f"text_decoder{m}")
        for number, layer in enumerate(decoder.bert.encoder):
            name = f"text_encoder{m}.bert.encoder.layer.{number + published.FUSION}"
            for part in ("attention.self.query", "crossattention.self.value", "output.dense"):
                assert layer.get_submodule(part).weight.equal(held[f"{name}.{part}.weight"])
        head = f"text_encoder{m}.cls.predictions.transform.dense.weight"
        assert decoder.cls.predictions.transform.dense.weight.equal(held[head])


def test_layers_that_look_in_turn_start_as_those_that_look_at_one_image() -> None:
    model, held = load("pretrain", "albef_nlvr")
    for number, layer in enumerate(model.text_tower.fusion_layers):
        name = f"text_encoder.bert.encoder.layer.{published.FUSION + number // 2}"
        key = "crossattention.self.query.weight"
        assert layer.get_submodule("crossattention.self.query").weight.equal(held[f"{name}.{key}"])


def test_momentum_copies_that_a_file_lacks_start_from_its_towers() -> None:
    held = {k: v for k, v in published.file("vqa").items() if "_m." not in k}
    model = create_model("albef_vqa", "tiny")
    assert load_state(model, held).complete
    assert model.text_decoder_m.bert.embeddings.word_embeddings.weight.equal(
        model.text_decoder.bert.embeddings.word_embeddings.weight
    )


@pytest.mark.parametrize(
    "key", ["itm_head.weight", "text_encoder.encoder.layer.3.output.dense.bias"]
)
def test_a_file_that_lacks_something_is_refused(key: str) -> None:
    held = published.file("retrieval")
    del held[key]
    with pytest.raises(CheckpointError, match=key):
        load_state(create_model("albef_retrieval", "tiny"), held)


def test_a_file_with_something_unknown_is_refused() -> None:
    held = published.file("vqa") | {"text_encoder.pooler.dense.weight": torch.zeros(2, 2)}
    with pytest.raises(CheckpointError, match=r"unexpected: text_encoder\.pooler"):
        load_state(create_model("albef_vqa", "tiny"), held)


# ---- what it computes


@torch.no_grad()
def test_texts_alone_are_read_by_the_lower_layers() -> None:
    model, held = load("pretrain")
    batch = model.tokenize(CAPTIONS)
    found = model.encode_text(batch)
    for row, ids in enumerate(rows(model, CAPTIONS)):
        expected = published.states(held, "text_encoder.bert", ids, TEXT)
        torch.testing.assert_close(found[row, : len(ids)], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_lower_layers_are_those_of_transformers_bert() -> None:
    transformers = pytest.importorskip("transformers")
    model, held = load("retrieval")
    config = transformers.BertConfig(
        vocab_size=published.WORDS, hidden_size=published.WIDTH, num_hidden_layers=published.FUSION,
        num_attention_heads=published.HEADS, intermediate_size=published.MLP,
    )  # fmt: skip
    bert = transformers.BertModel(config, add_pooling_layer=False).eval()
    own = {k.removeprefix("text_encoder."): v for k, v in held.items()}
    missing, _ = bert.load_state_dict({k: own[k] for k in bert.state_dict()}, strict=False)
    assert not missing
    batch = model.tokenize(CAPTIONS)
    expected = bert(batch.ids, attention_mask=batch.mask).last_hidden_state
    real = batch.mask.bool()
    torch.testing.assert_close(model.encode_text(batch)[real], expected[real], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_matching_and_hidden_words_are_read_by_all_layers() -> None:
    model, held = load("pretrain")
    tokens = model.encode_image(images())
    batch, ids = model.tokenize(CAPTIONS), rows(model, CAPTIONS)
    read = [
        published.states(held, "text_encoder.bert", row, [*TEXT, *[image] * FUSING])
        for row, image in zip(ids, tokens, strict=True)
    ]
    matches = torch.stack([published.dense(held, "itm_head", x[0]) for x in read])
    torch.testing.assert_close(model.match(tokens, CAPTIONS), matches, atol=2e-5, rtol=1e-4)
    kv = model.text_tower.project(tokens)
    again = model.match_pairs(kv, batch, model.encode_text(batch))
    torch.testing.assert_close(again, matches, atol=2e-5, rtol=1e-4)
    words = torch.cat([published.word_logits(held, "text_encoder", x) for x in read])
    found = model.predict_words(kv, batch, batch.mask.bool())
    torch.testing.assert_close(found, words, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_two_images_are_looked_at_in_turn() -> None:
    model, held = load("nlvr")
    first, second = images(), images().flip(0)
    found = model.predict({"image0": first, "image1": second, "text_input": CAPTIONS})
    tokens = [model.encode_image(image) for image in (first, second)]
    for row, ids in enumerate(rows(model, CAPTIONS)):
        turns = [tokens[number % 2][row] for number in range(2 * FUSING)]
        x = published.states(held, "text_encoder", ids, [*TEXT, *turns])[0]
        logits = published.dense(held, "cls_head.2", published.dense(held, "cls_head.0", x).relu())
        torch.testing.assert_close(found["predictions"][row], logits, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_classes_are_those_of_the_fused_start() -> None:
    model, held = load("classification")
    found = model.classify(model.encode_image(images()), model.tokenize(CAPTIONS))
    for row, ids in enumerate(rows(model, CAPTIONS)):
        image = model.encode_image(images())[row]
        x = published.states(held, "text_encoder", ids, [*TEXT, *[image] * FUSING])[0]
        logits = published.dense(held, "cls_head.2", published.dense(held, "cls_head.0", x).relu())
        torch.testing.assert_close(found[row], logits, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_answers_are_written_from_the_states_of_the_question() -> None:
    model, held = load("vqa")
    questions = [f"{caption}?" for caption in CAPTIONS]
    answers = ["red", "two", "a large square", "no"]
    states, mask = model.read_questions(model.encode_image(images()), model.tokenize(questions))
    kv = model.text_decoder.bert.project(states)
    found = answer_losses(model, kv, mask, model.tokenize_answers(answers), 0.0)
    for row, (question, answer) in enumerate(
        zip(rows(model, questions), rows(model, answers), strict=True)
    ):
        image = model.encode_image(images())[row]
        asked = published.states(held, "text_encoder", question, [*TEXT, *[image] * FUSING])
        decoder = "text_decoder.bert"
        x = published.states(held, decoder, answer, [asked] * FUSING, causal=True)[:-1]
        logits = published.word_logits(held, "text_decoder", x)
        expected = torch.nn.functional.cross_entropy(logits, answer[1:], reduction="sum")
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)
