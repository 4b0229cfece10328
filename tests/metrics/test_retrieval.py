"""Retrieval against brute force over a toy model, and that nothing but the model moves a figure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from two_processes import run_on_processes

from lavis_lite.errors import ConfigError, DataError
from lavis_lite.metrics import rerank
from lavis_lite.metrics.ranking import Ranking, found, preselect, rank, recalls
from lavis_lite.metrics.retrieval import Retrieval

WORDS = ["pad", "a", "red", "blue", "green", "dog", "cat", "bird", "on", "grass", "sand", "big"]
RUNNER = SimpleNamespace(device=torch.device("cpu"), seed=0, autocast=contextlib.nullcontext)


class Tokens(NamedTuple):
    """The shape of a text batch."""

    ids: Tensor
    mask: Tensor

    def to(self, device: Any) -> Tokens:
        return self


class ToyModel(nn.Module):
    """Random features; a match logit that is a function of the image and the set of words."""

    def __init__(self, constant: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.words = nn.Parameter(torch.randn(len(WORDS), 6, generator=generator))
        self.constant = constant
        self.calls: list[tuple[int, int]] = []

    def encode_image(self, image: Tensor) -> Tensor:
        return image.flatten(2).mT[:, :4].repeat(1, 1, 2)  # (B, 4, 6)

    def image_features(self, image_tokens: Tensor) -> Tensor:
        mean = image_tokens.mean(1)
        return nn.functional.normalize(torch.ones_like(mean) if self.constant else mean, dim=-1)

    def tokenize(self, texts: list[str]) -> Tokens:
        rows = [[WORDS.index(word) for word in text.split()] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return Tokens(ids, (ids > 0).long())

    def encode_text(self, text: Tokens) -> Tensor:
        return self.words[text.ids] * text.mask[..., None]

    def text_features(self, text_tokens: Tensor) -> Tensor:
        total = text_tokens.sum(1)
        return nn.functional.normalize(torch.ones_like(total) if self.constant else total, dim=-1)

    def rank(self, image_tokens: Tensor, texts: Tokens) -> Tensor:
        images = len(image_tokens)
        assert len(texts.ids) % images == 0
        assert texts.mask[:, -1].any(), "padded beyond the longest text"
        self.calls.append((images, len(texts.ids) // images))
        if self.constant:
            return torch.zeros(images, len(texts.ids) // images)
        text = self.encode_text(texts).sum(1).unflatten(0, (images, -1))
        return torch.sin(3 * torch.einsum("bd,bkd->bk", image_tokens[:, 0], text))


class ToyData:
    """Rows of random images; what EvalData offers."""

    def __init__(self, texts: list[list[str]], batch_size: int = 3, unreadable: int = -1) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(len(texts), 3, 4, 4, generator=generator)
        self.dataset = [
            {"image": None, "image_id": f"i{image}", "key": f"{image}-{number}", "text_input": text}
            for image, row in enumerate(texts)
            for number, text in enumerate(row)
        ]
        self.batch_size = batch_size
        self.unreadable = unreadable
        self.num_read = 0

    def batches(self, indices: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
        indices = indices or []
        for start in range(0, len(indices), self.batch_size):
            part = indices[start : start + self.batch_size]
            good = [i for i in part if self._image(i) != self.unreadable]
            self.num_read += len(good)
            if good:
                image = torch.stack([self.images[self._image(i)] for i in good])
                yield {"image": image, "index": good}

    def _image(self, index: int) -> int:
        return int(self.dataset[index]["image_id"][1:])


def captions(images: int = 11) -> list[list[str]]:
    """One to three captions of different lengths per image; some are shared between images."""
    generator = torch.Generator().manual_seed(2)

    def caption() -> str:
        length = int(torch.randint(2, 7, (), generator=generator))
        chosen = torch.randint(1, len(WORDS), (length,), generator=generator)
        return " ".join(WORDS[number] for number in chosen)

    rows = [[caption() for _ in range(1 + image % 3)] for image in range(images)]
    rows[4][0] = rows[7][0] = rows[2][1]
    return rows


def brute_force(
    data: ToyData, texts: list[list[str]], top_k: int, add_cosine: bool = True
) -> dict[str, float]:
    """The published procedure on full matrices, pair by pair."""
    model = ToyModel().eval()
    flat = [(image, text) for image, row in enumerate(texts) for text in row]
    with torch.no_grad():
        tokens = model.encode_image(data.images)
        image = model.image_features(tokens)
        text = torch.cat(
            [model.text_features(model.encode_text(model.tokenize([t]))) for _, t in flat]
        )
        cosine = (image @ text.T).double()
        match = torch.tensor(
            [[model.rank(i[None], model.tokenize([t])).item() for _, t in flat] for i in tokens]
        )
    owner = torch.tensor([image for image, _ in flat])
    true = torch.arange(len(texts))[:, None] == owner[None]
    figures = {}
    for name, sims, logits, truth in [
        ("txt", cosine, match, true),
        ("img", cosine.T, match.T, true.T),
    ]:
        hits = {1: 0.0, 5: 0.0, 10: 0.0}
        for row in range(len(sims)):
            order = sorted(range(sims.shape[1]), key=lambda c: (-round(sims[row, c].item(), 5), c))
            scores = (sims[row] - 100).clone()
            for c in order[:top_k]:
                scores[c] = (sims[row, c] if add_cosine else 0) + logits[row, c]
            best = max(scores[truth[row]])
            above = int((scores > best + 1e-5).sum())
            tied = int(((scores - best).abs() < 1e-5).sum())
            good = int((((scores - best).abs() < 1e-5) & truth[row]).sum())
            for k in hits:
                places = min(max(k - above, 0), tied)
                missed = math.comb(tied - good, places) / math.comb(tied, places)
                hits[k] += 100 * (1 - missed) / len(sims)
        figures |= {f"{name}_r{k}": value for k, value in hits.items()}
        figures[f"{name}_r_mean"] = sum(hits.values()) / 3
    figures["r_mean"] = (figures["txt_r_mean"] + figures["img_r_mean"]) / 2
    return figures


@pytest.mark.parametrize("top_k", [1, 3, 6, 128])
def test_figures_equal_the_published_procedure_on_full_matrices(top_k: int) -> None:
    data = ToyData(captions())
    result = Retrieval(top_k=top_k).evaluate(ToyModel(), data, RUNNER)
    expected = brute_force(data, captions(), top_k)
    assert result.metrics == pytest.approx(expected, abs=1e-6)
    assert len({round(value) for value in expected.values()}) > 3  # the toy is not degenerate


def test_candidates_can_be_ranked_by_the_match_logit_alone() -> None:
    data = ToyData(captions())
    result = Retrieval(top_k=3, add_cosine=False).evaluate(ToyModel(), data, RUNNER)
    expected = brute_force(data, captions(), 3, add_cosine=False)
    assert result.metrics == pytest.approx(expected, abs=1e-6)
    assert expected != pytest.approx(brute_force(data, captions(), 3), abs=1e-6)


@pytest.mark.parametrize("store", ["memory", "disk"])
@pytest.mark.parametrize(("chunk_size", "batch_size", "text_batch_size"), [(1, 1, 1), (7, 4, 5)])
def test_chunks_batches_and_stores_do_not_move_a_figure(
    chunk_size: int, batch_size: int, text_batch_size: int, store: Any, tmp_path: Path
) -> None:
    usual = Retrieval(top_k=4).evaluate(ToyModel(), ToyData(captions()), RUNNER)
    runner = SimpleNamespace(**vars(RUNNER), output_dir=tmp_path)
    metric = Retrieval(4, chunk_size, text_batch_size, store=store)
    other = metric.evaluate(ToyModel(), ToyData(captions(), batch_size), runner)
    assert other.metrics == usual.metrics
    for ours, theirs in zip(other.predictions, usual.predictions, strict=True):
        assert [r["key"] for r in ours["results"]] == [r["key"] for r in theirs["results"]]
        assert ours["rank"] == theirs["rank"]
    assert list(tmp_path.iterdir()) == []  # the file of the tokens is gone


def test_calls_stay_within_the_chunk_and_pairs_are_scored_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rerank, "_TEXTS_PER_IMAGE", 4)
    model, data = ToyModel(), ToyData(captions())
    Retrieval(chunk_size=8).evaluate(model, data, RUNNER)
    assert max(images * texts for images, texts in model.calls) <= 8
    distinct = len({text for row in captions() for text in row})
    # Every image with every distinct text, plus what fills rectangles up (here none).
    assert sum(images * texts for images, texts in model.calls) == 11 * distinct
    assert data.num_read == 11  # each image is read once, however many texts it has


def test_a_constant_model_gets_what_guessing_gets() -> None:
    texts = [[text] for text in ["a dog", "a cat", "a bird", "red dog", "blue dog", "big cat"]]
    figures = Retrieval().evaluate(ToyModel(constant=True), ToyData(texts), RUNNER).metrics
    for name in ("txt", "img"):
        assert figures[f"{name}_r1"] == pytest.approx(100 / 6)
        assert figures[f"{name}_r5"] == pytest.approx(500 / 6)
        assert figures[f"{name}_r10"] == pytest.approx(100)


def test_a_model_that_gives_nan_finds_nothing_by_it() -> None:
    model = ToyModel()
    with torch.no_grad():
        model.words.fill_(torch.nan)
    texts = [[text] for text in ["a dog", "a cat", "a bird", "red dog"]]
    assert Retrieval().evaluate(model, ToyData(texts), RUNNER).metrics["txt_r1"] == 25


def test_without_reranking_the_cosine_decides_and_nothing_is_matched() -> None:
    model, data = ToyModel(), ToyData(captions())
    result = Retrieval(rerank=False).evaluate(model, data, RUNNER)
    assert model.calls == []
    tokens = model.encode_image(data.images)
    with torch.no_grad():
        text = model.text_features(model.encode_text(model.tokenize(captions()[3])))
        cosine = (model.image_features(tokens) @ text.T)[:, 0]
    row = next(r for r in result.predictions if r["query"] == "text" and r["key"] == "3-0")
    assert [r["key"][:-2] for r in row["results"]] == [
        str(number) for number in cosine.topk(5).indices.tolist()
    ]
    assert row["results"][0]["score"] == pytest.approx(cosine.max().item(), abs=1e-4)


def test_predictions_name_the_best_five_and_mark_the_true_ones() -> None:
    texts = captions()
    result = Retrieval().evaluate(ToyModel(), ToyData(texts), RUNNER)
    images = [row for row in result.predictions if row["query"] == "image"]
    queries = [row for row in result.predictions if row["query"] == "text"]
    assert [row["image_id"] for row in images] == [f"i{n}" for n in range(11)]
    assert [row["text"] for row in queries] == [text for row in texts for text in row]
    for row in result.predictions:
        scores = [r["score"] for r in row["results"]]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)
        places = [n for n, r in enumerate(row["results"], 1) if r["correct"]]
        assert not places or row["rank"] <= places[0]
        assert (row["rank"] > 5) == (not places)


def test_an_unreadable_image_is_left_out_with_its_texts() -> None:
    texts = captions()
    result = Retrieval().evaluate(ToyModel(), ToyData(texts, unreadable=5), RUNNER)
    keys = {row["image_id"] for row in result.predictions}
    assert keys == {f"i{n}" for n in range(11) if n != 5}
    whole = ToyData(texts)
    whole.images = torch.cat([whole.images[:5], whole.images[6:]])
    whole.dataset = [
        {**row, "image_id": f"i{n - (n > 5)}"}
        for row in whole.dataset
        if (n := int(row["image_id"][1:])) != 5
    ]
    expected = Retrieval().evaluate(ToyModel(), whole, RUNNER)
    assert result.metrics == expected.metrics


def test_the_mode_of_the_model_is_put_back() -> None:
    model = ToyModel().train()
    Retrieval().evaluate(model, ToyData(captions()), RUNNER)
    assert model.training


def test_a_model_that_cannot_rank_is_told_what_to_do() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ConfigError, match=r"requires rank, which Linear lacks; `rerank: false`"):
        Retrieval().evaluate(model, ToyData(captions()), RUNNER)


@pytest.mark.parametrize("name", ["top_k", "chunk_size", "text_batch_size"])
def test_sizes_below_one_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"retrieval\.{name}: 0; it must be at least 1"):
        Retrieval(**{name: 0})


def test_nothing_readable_is_an_error() -> None:
    with pytest.raises(DataError, match="none of the images could be read"):
        Retrieval().evaluate(ToyModel(), ToyData([["a dog"]], unreadable=0), RUNNER)


def test_shared_scores_are_expected_over_random_order() -> None:
    def ranking(above: int, tied: int, true: int) -> Ranking:
        empty = torch.empty(1, 0)
        return Ranking(
            torch.tensor([above]), torch.tensor([tied]), torch.tensor([true]), empty, empty
        )

    assert found(ranking(0, 1, 1), 1).item() == 1
    assert found(ranking(1, 1, 1), 1).item() == 0
    assert found(ranking(4, 1, 1), 5).item() == 1
    assert found(ranking(0, 4, 1), 1).item() == pytest.approx(1 / 4)
    assert found(ranking(3, 4, 2), 5).item() == pytest.approx(1 - math.comb(2, 2) / math.comb(4, 2))
    assert recalls("x", ranking(2, 1, 1)) == {
        "x_r1": 0,
        "x_r5": 100,
        "x_r10": 100,
        "x_r_mean": pytest.approx(200 / 3),
    }


def test_candidates_that_were_not_rescored_rank_below_by_cosine() -> None:
    query, candidate = torch.eye(2)[:1], torch.tensor([[1.0, 0], [0.8, 0.6], [0.6, 0.8], [0, 1.0]])
    chosen = preselect(query, candidate, 2)
    assert chosen.tolist() == [[0, 1]]
    owner = torch.arange(4)
    logits = torch.tensor([[-9.0, -8.0]])  # poor scores, yet ahead of all that were not chosen
    ranks = [
        rank(query, candidate, torch.tensor([n]), owner, chosen, logits).above.item()
        for n in range(4)
    ]
    assert ranks == [1, 0, 2, 3]


def test_equal_cosines_are_chosen_in_their_order() -> None:
    candidate = torch.ones(6, 1)
    assert preselect(torch.ones(2, 1), candidate, 3).tolist() == [[0, 1, 2]] * 2


def test_cosines_are_compared_in_fp32_under_autocast() -> None:
    query = torch.nn.functional.normalize(torch.randn(6, 32), dim=1)
    candidate = torch.nn.functional.normalize(query[:1] + 1e-3 * torch.randn(50, 32), dim=1)
    owner = torch.arange(50)
    chosen = preselect(query, candidate, 10)

    def ranking() -> Ranking:
        return rank(query, candidate, owner[:6], owner, chosen, None)

    with torch.autocast("cpu", torch.bfloat16):
        assert preselect(query, candidate, 10).equal(chosen)
        mixed = ranking()
    for mine, plain in zip(mixed, ranking(), strict=True):
        assert mine.equal(plain)
    assert mixed.tied.eq(1).all()  # bf16 would make many of them equal


def _evaluate(num_images: int) -> tuple[dict[str, float], list[Any]]:
    result = Retrieval(top_k=4, chunk_size=5).evaluate(
        ToyModel(), ToyData(captions(11)[:num_images]), RUNNER
    )
    keys = [[found["key"] for found in row["results"]] for row in result.predictions]
    return result.metrics, keys


@pytest.mark.parametrize("num_images", [11, 2])
def test_three_processes_find_what_one_finds_even_without_an_image_each(num_images: int) -> None:
    alone = _evaluate(num_images)
    assert run_on_processes(_evaluate, num_images, world_size=3) == [alone] * 3
