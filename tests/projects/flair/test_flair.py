"""FLAIR: its attention, its loss, what it can do, and its training."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench_models import batch
from torch import Tensor
from toy_runs import run

from lavis_lite import config, create_model
from lavis_lite.config.files import config_root
from lavis_lite.errors import ConfigError
from lavis_lite.losses.shared import Shared
from lavis_lite.losses.sigmoid import pairwise_sigmoid
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.projects.flair.losses import TextConditionedSigmoid, compared_texts
from lavis_lite.projects.flair.pooling import TextConditionedPool
from lavis_lite.registry import cards

TEXTS = ["a red cross", "two small green squares above a circle", "a star"]


@functools.cache
def flair() -> Any:
    torch.manual_seed(0)
    model = create_model("flair", "tiny").eval()
    with torch.no_grad():
        model.logit_bias.fill_(-2.0)
    return model


def images(number: int = 3) -> Tensor:
    return torch.randn(number, 3, 64, 64, generator=torch.Generator().manual_seed(1))


# ---- the attention


def test_a_text_attends_to_the_tokens_or_to_nothing() -> None:
    pool = TextConditionedPool(8, 2).eval()
    texts, tokens = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    query = F.linear(pool.norm_query(texts), *projection(pool, 0))
    key = F.linear(pool.norm_key(tokens), *projection(pool, 1))
    value = F.linear(pool.norm_value(tokens), *projection(pool, 2))
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 4**0.5  # (2, 3, 5)
        with_nothing = torch.cat([scores, torch.zeros(2, 3, 1)], dim=-1).softmax(-1)
        heads.append(with_nothing[..., :5] @ value[..., part])
    expected = pool.attention.out_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(pool(texts, tokens), expected)


def projection(pool: TextConditionedPool, number: int) -> tuple[Tensor, Tensor]:
    weight, bias = pool.attention.in_proj_weight, pool.attention.in_proj_bias
    return weight.chunk(3)[number], bias.chunk(3)[number]


@pytest.mark.parametrize("num_heads", [0, 5])
def test_heads_that_do_not_divide_the_joint_space_are_refused(num_heads: int) -> None:
    with pytest.raises(ConfigError, match=f"model.num_heads: {num_heads}; .* 32 wide"):
        create_model("flair", "tiny", num_heads=num_heads)


def test_what_a_text_sees_does_not_depend_on_the_other_texts_or_images() -> None:
    model = flair()
    tokens, texts = model.encode_image(images()), model.text_features(model.encode_text(TEXTS))
    together = model.conditioned_features(tokens, texts.expand(3, 3, -1))
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(3, 3))
    alone = model.conditioned_features(tokens[1:2], texts[None, 2:])
    torch.testing.assert_close(together[1, 2], alone[0, 0], atol=1e-5, rtol=0)
    assert (together[0, 0] - together[0, 1]).abs().max() > 1e-3


def test_the_class_token_is_not_looked_at() -> None:
    model = flair()
    tokens, texts = model.encode_image(images()), model.text_features(model.encode_text(TEXTS))
    other = tokens.clone()
    other[:, 0] = torch.randn_like(other[:, 0])
    seen = [model.conditioned_features(each, texts[:, None]) for each in (tokens, other)]
    assert torch.equal(*seen)
    other[:, 1] = 0
    assert not torch.equal(seen[0], model.conditioned_features(other, texts[:, None]))


# ---- matching


def test_match_and_rank_compare_a_text_with_what_it_sees() -> None:
    model = flair()
    tokens, texts = model.encode_image(images()), model.text_features(model.encode_text(TEXTS))
    seen = model.conditioned_features(tokens, texts.expand(3, 3, -1))
    logits = (seen * texts).sum(-1) / model.temperature + model.logit_bias
    close = functools.partial(torch.testing.assert_close, atol=1e-4, rtol=0)
    close(model.rank(tokens, TEXTS), logits)
    close(model.rank(tokens, [TEXTS[:2]] * 3), logits[:, :2])
    close(model.rank(tokens, model.tokenize(TEXTS * 3)), logits)
    close(model.match(tokens, TEXTS), torch.stack([torch.zeros(3), logits.diag()], dim=1))
    assert not torch.allclose(
        (model.image_features(tokens) @ texts.T), (seen * texts).sum(-1), atol=1e-3
    )


def test_texts_for_more_images_than_there_are_are_refused() -> None:
    model = flair()
    with pytest.raises(ConfigError, match=r"text_features: \(2, 1, 32\) for 3 images"):
        model.conditioned_features(model.encode_image(images()), torch.randn(2, 1, 32))


# ---- the loss


def test_an_image_is_compared_with_all_its_texts_and_one_of_each_other_image() -> None:
    texts = torch.arange(6.0).reshape(3, 2, 1)  # image 0 has the texts 0 and 1, image 1 has 2, 3
    choice = torch.tensor([[0, 1, 0], [1, 0, 1]])
    chosen, positive, counted = compared_texts(texts, choice, first=1)
    assert chosen[..., 0].tolist() == [[2, 3, 0, 3, 4], [4, 5, 1, 2, 5]]
    assert positive.tolist() == [True, True, False, False, False]
    assert counted.tolist() == [[True, True, True, False, True], [True, True, True, True, False]]


def shared(model: Any, **more: Any) -> Shared[Any]:
    samples = {"image": images(), "text_input": TEXTS, **more}
    return Shared(model, samples, StepInfo(step=2, seed=5))


def test_with_one_text_each_the_loss_is_siglip_s_over_conditioned_features() -> None:
    model = flair()
    step = shared(model)
    texts = step.text_features
    seen = model.conditioned_features(step.image_tokens, texts.expand(3, 3, -1))
    logits = (seen * texts).sum(-1) / model.temperature + model.logit_bias
    signs = 2 * torch.eye(3) - 1
    expected = -F.logsigmoid(signs * logits).sum() / 3
    torch.testing.assert_close(TextConditionedSigmoid()(step), expected, atol=1e-4, rtol=0)


def test_with_several_texts_each_counts_as_true() -> None:
    model = flair()
    rows = [["a red cross", "a cross"], ["two squares", "a circle"], ["a star", "a star"]]
    step = shared(model, text_inputs=rows)
    texts = step.several_text_features
    assert texts.shape == (3, 2, 32)
    flat = [text for row in rows for text in row]
    torch.testing.assert_close(texts.flatten(0, 1), model.text_features(model.encode_text(flat)))
    draws = torch.randint(2, (3, 3), generator=step.generator(7))
    total = torch.tensor(0.0)
    for image in range(3):
        pairs = [(text, 1) for text in texts[image]]
        pairs += [(texts[other, draws[image, other]], -1) for other in range(3) if other != image]
        for text, sign in pairs:
            tokens = step.image_tokens[image : image + 1]
            seen = model.conditioned_features(tokens, text[None, None])[0, 0]
            total = total - F.logsigmoid(
                sign * (seen @ text / model.temperature + model.logit_bias)
            )
    torch.testing.assert_close(TextConditionedSigmoid()(step), total / 3, atol=1e-4, rtol=0)


def test_negatives_are_drawn_anew_in_each_step() -> None:
    model, rows = flair(), [["a red cross", "a cross"], ["two squares", "no"], ["a star", "red"]]
    samples = {"image": images(), "text_input": TEXTS, "text_inputs": rows}
    losses = [
        TextConditionedSigmoid()(Shared(model, samples, StepInfo(step=step))).item()
        for step in (1, 1, 2, 3, 4)
    ]
    assert losses[0] == losses[1]
    assert len(set(losses)) > 1


# ---- the model as a whole


def test_each_type_builds_and_names_its_losses() -> None:
    assert cards.types("flair") == ["B-16", "tiny", "scenes"]
    for type in ("tiny", "scenes"):
        losses = create_model("flair", type).losses
        assert [*losses] == ["tcs", "mps"]


def test_a_step_moves_both_towers_and_the_attention() -> None:
    model = create_model("flair", "tiny")
    samples = {**batch(4), "image": images(4)}
    samples["text_inputs"] = [[text, f"{text} on black"] for text in samples["text_input"]]
    output = model(samples)
    texts = model.text_features(
        model.encode_text([text for row in samples["text_inputs"] for text in row])
    ).unflatten(0, (4, 2))
    found = model.image_features(model.encode_image(samples["image"]))
    mps = pairwise_sigmoid(found, texts, model.temperature, model.logit_bias)
    assert output.losses["mps"].item() == pytest.approx(mps.item(), rel=1e-4)
    output.loss.backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in still if "key_padding" not in name] == []


def test_gradients_by_chunks_are_those_of_the_whole_batch() -> None:
    samples = {**batch(4), "image": images(4)}
    samples["text_inputs"] = [[text, f"{text} on black"] for text in samples["text_input"]]
    grads = []
    for chunk in (0, 3):
        torch.manual_seed(0)
        model = create_model("flair", "tiny", gradient_cache=chunk)
        model(samples, StepInfo()).loss.backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for name, whole in grads[0].items():
        torch.testing.assert_close(grads[1][name], whole, atol=1e-5, rtol=1e-3, msg=name)


def test_a_run_trains_it_and_both_ways_of_retrieval_are_measured(tmp_path: Path) -> None:
    small = "data: {name: scenes, split: test, size: 12}"
    cfg = config.load(
        config_root() / "flair" / "pretrain_scenes.yaml",
        [
            "run.max_steps=2",
            "data.batch_size=4",
            f"run.output_dir={tmp_path}/run",
            f"evaluate=[{{name: retrieval, rerank: false, {small}}}, "
            f"{{name: retrieval, add_cosine: false, {small}}}]",
        ],
    )
    metrics = run(cfg)["metrics"]
    assert metrics["retrieval/txt_r10"] > 0
    assert metrics["retrieval_2/txt_r10"] > 0
