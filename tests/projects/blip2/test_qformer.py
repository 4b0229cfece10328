"""The Q-Former: who sees whom, folding, padding, first weights, and writing token by token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lavis_lite import registry
from lavis_lite.errors import ConfigError
from lavis_lite.modules.generation import generate
from lavis_lite.modules.med.attention import select
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.projects.blip2.qformer import QFormer, QueryDecoder

VOCAB, WIDTH, IMAGE_WIDTH, QUERIES = 50, 16, 12, 3


def tower(**changes: object) -> QFormer:
    """A small Q-Former whose biases, norms and positions matter."""
    arguments = {
        "width": WIDTH, "depth": 3, "num_heads": 2, "mlp_width": 24, "vocab_size": VOCAB,
        "encoder_width": IMAGE_WIDTH, "max_length": 20, "num_queries": QUERIES,
    }  # fmt: skip
    qformer = QFormer(**{**arguments, **changes})
    with torch.no_grad():
        for parameter in qformer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return qformer.eval()


def image_of(rows: int) -> Tensor:
    return torch.randn(rows, 5, IMAGE_WIDTH)


def texts(lengths: list[int], longest: int = 7) -> TextBatch:
    ids = torch.randint(1, VOCAB, (len(lengths), longest))
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    return TextBatch(ids * mask, mask)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_padding_and_the_rest_of_the_batch_change_no_state() -> None:
    qformer, image, text = tower(), image_of(3), texts([7, 3, 5])
    together = qformer.query_states(image, text)
    alone, reading = qformer(*text), qformer.read_image(image)
    logits = qformer.next_word_logits(reading.prefix, text.ids)
    for row, length in enumerate([7, 3, 5]):
        ids = text.ids[row : row + 1, :length]
        one, whole = image[row : row + 1], torch.ones_like(ids)
        close(qformer.query_states(one, TextBatch(ids, whole)), together[row : row + 1])
        close(qformer(ids, whole)[0], alone[row, :length])
        close(qformer.query_states(one), reading.states[row : row + 1])
        prefix = qformer.read_image(one).prefix
        close(qformer.next_word_logits(prefix, ids)[0], logits[row, :length])


def test_the_texts_of_an_image_are_folded_onto_its_keys_and_values() -> None:
    qformer, text = tower(), texts([7, 3, 5, 7, 2, 6])
    kv = qformer.project(image_of(2))
    folded = qformer.read_with_text(kv, text)
    repeated = qformer.read_with_text(select(kv, torch.tensor([0, 0, 0, 1, 1, 1])), text)
    close(folded, repeated)
    assert (
        qformer.read_with_text(select(kv, torch.tensor([1, 0])), text) - folded
    ).abs().max() > 0.1


def test_queries_look_at_the_image_in_every_second_layer_and_texts_in_none() -> None:
    qformer = tower(depth=5)
    looks = [hasattr(layer, "crossattention") for layer in qformer.bert.encoder]
    assert looks == [True, False, True, False, True]
    assert [
        hasattr(layer, "crossattention") for layer in tower(cross_attention_every=1).bert.encoder
    ] == [True] * 3
    text = texts([4, 4])
    before = qformer(*text)
    with torch.no_grad():
        for layer in qformer.bert.encoder:
            if hasattr(layer, "crossattention"):
                layer.crossattention.self.value.weight.mul_(2)
            layer.intermediate_query["dense"].weight.mul_(2)
    torch.testing.assert_close(qformer(*text), before, rtol=0, atol=0)


def test_a_written_token_sees_the_queries_and_what_is_before_it() -> None:
    qformer, ids = tower(), texts([6, 6], 6).ids
    prefix = qformer.read_image(image_of(2)).prefix
    logits = qformer.next_word_logits(prefix, ids)
    later = ids.clone()
    later[:, 4:] = 1
    changed = qformer.next_word_logits(prefix, later)
    close(changed[:, :4], logits[:, :4])
    assert (changed[:, 4:] - logits[:, 4:]).abs().max() > 0.1
    other = qformer.next_word_logits(qformer.read_image(image_of(2)).prefix, ids)
    assert (other[:, 0] - logits[:, 0]).abs().max() > 0.1


def test_queries_and_text_see_each_other_when_they_read_together() -> None:
    qformer, image = tower(), image_of(1)
    first, second = texts([5], 5), texts([5], 5)
    assert (
        qformer.query_states(image, first) - qformer.query_states(image, second)
    ).abs().max() > 0.1
    assert (qformer.query_states(image, first) - qformer.query_states(image)).abs().max() > 0.1


@pytest.mark.parametrize(
    "options", [{"method": "greedy"}, {"num_beams": 3}, {"num_beams": 3, "num_return": 2}]
)
@pytest.mark.parametrize("length", [1, 3])
def test_writing_with_a_cache_equals_reading_the_whole_text_again(
    options: dict[str, object], length: int
) -> None:
    qformer = tower()
    prefix = qformer.read_image(image_of(3)).prefix
    prompt = torch.randint(1, VOCAB, (3, length))
    arguments = {**options, "max_length": 12, "min_length": 4, "eos_id": 7, "pad_id": 0}
    cached = generate(QueryDecoder(qformer, prefix), prompt, **arguments)
    assert cached == generate(WithoutCache(qformer, prefix), prompt, **arguments)


class WithoutCache:
    """Reads every text from its start in each step."""

    def __init__(self, qformer: QFormer, prefix: list) -> None:
        self.qformer, self.prefix = qformer, prefix

    def start(self, prompt: Tensor, num_texts: int, max_length: int) -> Tensor:
        self.rows, self.texts = torch.arange(len(prompt)), prompt[:, None].expand(-1, num_texts, -1)
        return self.logits()[:, 0]

    def step(self, ids: Tensor, parents: Tensor | None = None) -> Tensor:
        if parents is not None:
            index = parents[..., None].expand(-1, -1, self.texts.shape[-1])
            self.texts = self.texts.gather(1, index)
        self.texts = torch.cat([self.texts, ids[..., None]], dim=-1)
        return self.logits()

    def keep(self, rows: Tensor) -> None:
        self.rows, self.texts = self.rows[rows], self.texts[rows]

    def logits(self) -> Tensor:
        num_texts = self.texts.shape[1]
        prefix = select(self.prefix, self.rows.repeat_interleave(num_texts))
        last = self.qformer.next_word_logits(prefix, self.texts.flatten(0, 1))[:, -1]
        return last.unflatten(0, (-1, num_texts))


def test_gradients_of_writing_reach_the_queries_and_the_image() -> None:
    qformer, image = tower(), image_of(2).requires_grad_()
    prefix = qformer.read_image(image).prefix
    qformer.next_word_logits(prefix, texts([5, 5], 5).ids).square().mean().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert qformer.query_tokens.grad.abs().max() > 0
    last = qformer.bert.encoder.layer[2]  # of its queries, keys and values alone are seen
    assert last.output_query.dense.weight.grad is None
    assert last.output.dense.weight.grad.abs().max() > 0


def test_without_words_it_reads_images_alone() -> None:
    qformer = tower(vocab_size=None)
    assert qformer.query_states(image_of(2)).shape == (2, QUERIES, WIDTH)
    names = dict(qformer.named_parameters())
    assert not any(
        ".intermediate." in n or (".output.dense" in n and "attention" not in n) for n in names
    )
    assert not any("word_embeddings" in n or n.startswith("cls.") for n in names)
    with pytest.raises(ConfigError, match="no head over words"):
        QueryDecoder(qformer, [])


def test_the_feed_forward_of_queries_starts_from_that_of_texts() -> None:
    spec = {"name": "qformer", "width": WIDTH, "depth": 2, "num_heads": 2, "mlp_width": 24}
    built = registry.build(
        "text_backbone", {**spec, "init_scale": 1.0}, vocab_size=VOCAB, encoder_width=IMAGE_WIDTH
    )
    for layer in built.bert.encoder:
        assert torch.equal(
            layer.intermediate_query["dense"].weight, layer.intermediate["dense"].weight
        )
        assert layer.intermediate_query["dense"].weight is not layer.intermediate["dense"].weight
        assert torch.equal(layer.output_query.dense.weight, layer.output.dense.weight)
    assert built.query_tokens.std().item() == pytest.approx(0.02, rel=0.3)
    texts_only = registry.build("text_backbone", spec, encoder_width=IMAGE_WIDTH)
    assert texts_only.cls is None


def test_it_starts_from_a_bert_with_its_head(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=20,
    )  # fmt: skip
    bert = BertForMaskedLM(config).eval()
    bert.save_pretrained(tmp_path)
    spec = {
        "name": "qformer", "width": WIDTH, "depth": 2, "num_heads": 2, "mlp_width": 24,
        "max_length": 20, "pretrained": str(tmp_path),
    }  # fmt: skip
    built = registry.build(
        "text_backbone", spec, vocab_size=VOCAB + 1, encoder_width=IMAGE_WIDTH
    ).eval()
    ids = torch.randint(1, VOCAB, (2, 6))
    close(built(ids), bert.bert(ids).last_hidden_state)
    close(built.head(built(ids))[..., :VOCAB], bert(ids).logits)
    layer = built.bert.encoder.layer[1]
    theirs = bert.bert.encoder.layer[1]
    assert torch.equal(layer.intermediate_query["dense"].weight, theirs.intermediate.dense.weight)
    assert torch.equal(layer.output_query.LayerNorm.weight, theirs.output.LayerNorm.weight)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_heads": 3}, "does not divide"),
        ({"num_queries": 0}, "num_queries 0"),
        ({"cross_attention_every": 0}, "cross_attention_every 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tower(**changes)
