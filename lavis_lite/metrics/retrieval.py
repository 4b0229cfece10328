"""Image-text retrieval: contrast chooses candidates, matching re-scores them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor

from lavis_lite import distributed, registry
from lavis_lite.data.counts import Counts
from lavis_lite.errors import ConfigError
from lavis_lite.metrics.columns import Chief, Column
from lavis_lite.metrics.counts import (
    count,
    demand_numbers,
    demand_some,
    not_finite,
    set_aside,
)
from lavis_lite.metrics.pairs import (
    Pairs,
    count_images,
    demand,
    encode_frames,
    evaluating,
    image_batches,
    read_pairs,
    text_processor,
)
from lavis_lite.metrics.ranking import LISTED, Ranking, preselect, rank, recalls
from lavis_lite.metrics.rerank import Texts, match_logits
from lavis_lite.metrics.token_store import TokenStore, token_store
from lavis_lite.modules.interfaces import (
    Context,
    Embeds,
    Evaluation,
    EvaluationData,
    Ranks,
    Tokenizes,
)


class Encoded(NamedTuple):
    """A dataset as a model sees it; everything but ``share`` is the same on every process.

    Attributes:
        pairs: the M readable images and their R texts.
        image: (M, E) unit length; (M, Q, E) of a model that embeds an image by several vectors.
        text: (U, E) unit length; equal texts are encoded, and scored, once.
        distinct: (R,) row of ``text`` that each text is.
        owner: (R,) image of each text.
        texts: the U distinct texts, tokenised.
        share: this process's images.
    """

    pairs: Pairs
    image: Tensor
    text: Tensor
    distinct: Tensor
    owner: Tensor
    texts: Texts
    share: range


@registry.register("metric", "retrieval")
class Retrieval:
    """R@1, R@5, R@10 of texts by image (``txt_``) and images by text (``img_``), all in %.

    For each image the ``top_k`` texts of highest cosine are re-scored as match logit + cosine, and
    likewise for each text the ``top_k`` images; all others rank below, by cosine. True is what has
    the same ``image_id``, and the best-ranked true candidate counts: an identical caption of
    another image is wrong, as published. Videos are found by their frames: embedded by the mean,
    matched with all of them. Where scores are exactly equal, R@k is its expectation
    over random order, so that a model which cannot tell candidates apart gets what guessing gets.

    Left out are empty texts, and images without a text; set aside with their texts, images that
    cannot be read or whose embedding is not finite. The result's counts say how many.

    Args:
        top_k: candidates of a query that are re-scored.
        chunk_size: image-text pairs that are matched in one call; bounds memory, moves no figure.
        text_batch_size: texts that are encoded in one call.
        rerank: re-score; without it the cosine decides and the model need not match.
        store: where the image tokens wait: ``memory``, or ``disk`` (a file in the output folder).
        add_cosine: add the cosine to the match logit, as BLIP does; ALBEF takes the logit alone.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 5.1; ALBEF's evaluation.
    """

    requires = (Embeds, Tokenizes)
    requires_if: ClassVar = {"rerank": ((Ranks,), "`rerank: false` ranks by cosine alone")}
    title = "Retrieval, R@k in %"
    counted = "{query}s"
    columns = (
        Column("txt_r1", "R@1", "texts by image", unit="%"),
        Column("txt_r5", "R@5", "texts by image", unit="%"),
        Column("txt_r10", "R@10", "texts by image", unit="%"),
        Column("img_r1", "R@1", "images by text", unit="%"),
        Column("img_r5", "R@5", "images by text", unit="%"),
        Column("img_r10", "R@10", "images by text", unit="%"),
        Column("r_mean", "mean", unit="%"),
        Column("txt_r_mean", shown=False),
        Column("img_r_mean", shown=False),
    )
    chief = Chief("r_mean", "mean of R@1, 5, 10, both ways", "%")

    def __init__(
        self,
        top_k: int = 128,
        chunk_size: int = 1024,
        text_batch_size: int = 256,
        rerank: bool = True,
        store: Literal["memory", "disk"] = "memory",
        add_cosine: bool = True,
    ) -> None:
        sizes = {"top_k": top_k, "chunk_size": chunk_size, "text_batch_size": text_batch_size}
        for name, value in sizes.items():
            if value < 1:
                raise ConfigError(f"retrieval.{name}: {value}; it must be at least 1")
        self.top_k = top_k
        self.chunk_size = chunk_size
        self.text_batch_size = text_batch_size
        self.rerank = rerank
        self.store = store
        self.add_cosine = add_cosine

    def check(self, model: Embeds) -> None:
        """Refuse a model that cannot re-score (ConfigError)."""
        demand(model, "retrieval", self)

    def evaluate(self, model: Embeds, data: EvaluationData, runner: Context) -> Evaluation:
        """Figures in %, and per query its rank and best five candidates.

        Raises:
            DataError: nothing to evaluate.
            FloatingPointError: the model gives NaN or infinity for texts or pairs.
        """
        self.check(model)
        with evaluating(model, runner):
            known = read_pairs(data)
            pairs, left_out = known.with_texts(text_processor(data))
            alone = {"no text": left_out["no text"]}
            if not pairs.images:
                demand_some(count_images(data, known, [], alone), "retrieval")
            folder = getattr(runner, "output_dir", None)
            room = len(distributed.shard(len(pairs.images)))
            with token_store(room, self.store, folder) as store:
                encoded = self._encode(model, data, pairs, runner, store)
                to_texts, to_images = self._rank(model, encoded, store, runner.device)
        figures = {**recalls("txt", to_texts), **recalls("img", to_images)}
        figures["r_mean"] = (figures["txt_r_mean"] + figures["img_r_mean"]) / 2
        return Evaluation(
            figures,
            predictions(encoded.pairs, to_texts, to_images),
            counts=_counts(data, known, encoded.pairs, left_out),
        )

    def _encode(
        self,
        model: Embeds,
        data: EvaluationData,
        pairs: Pairs,
        runner: Context,
        store: TokenStore,
    ) -> Encoded:
        """Encode this process's share of images and texts, and gather the embeddings."""
        positions: list[int] = []
        image: list[Tensor] = []
        for batch in image_batches(data, pairs, runner):
            tokens, to_embed = encode_frames(model, batch.image)
            embeds = model.image_features(to_embed).float().cpu()
            good = embeds.isfinite().flatten(1).all(1)
            for position, is_good in zip(batch.positions, good.tolist(), strict=True):
                if is_good:
                    positions.append(position)
                else:
                    row = pairs.images[position]
                    set_aside(data, row.index, row.key, not_finite("an image's embedding"))
            image.append(embeds[good])
            if self.rerank and bool(good.any()):
                places = range(len(positions) - int(good.sum()), len(positions))
                store.put(places, tokens if bool(good.all()) else tokens[good.to(tokens.device)])
        readable = distributed.all_gather_object(positions)
        first = sum(map(len, readable[: distributed.rank()]))
        seen, pairs = pairs, pairs.only([position for part in readable for position in part])
        if not pairs.images:
            demand_some(count_images(data, seen, []), "retrieval")

        process = text_processor(data)
        numbers: dict[str, int] = {}
        distinct = [numbers.setdefault(process(row.text), len(numbers)) for row in pairs.texts]
        texts = Texts(cast(Tokenizes, model).tokenize(list(numbers)))
        text = self._encode_texts(model, texts, runner.device)
        demand_numbers(text, "retrieval", "a text's embedding")
        return Encoded(
            pairs,
            image=_gather(image).to(runner.device),
            text=text,
            distinct=torch.tensor(distinct),
            owner=torch.tensor([row.image for row in pairs.texts]),
            texts=texts,
            share=range(first, first + len(positions)),
        )

    def _encode_texts(self, model: Embeds, texts: Texts, device: torch.device) -> Tensor:
        batches = list(texts.by_length(self.text_batch_size))
        embeds = []
        for number in distributed.shard(len(batches)):
            states = model.encode_text(texts.take(batches[number], device))
            embeds.append(model.text_features(states).float().cpu())
        gathered = _gather(embeds)
        return torch.empty_like(gathered).index_copy_(0, torch.cat(batches), gathered).to(device)

    def _rank(
        self, model: Embeds, encoded: Encoded, store: TokenStore, device: torch.device
    ) -> tuple[Ranking, Ranking]:
        """Texts for every image and images for every text; each process ranks for its share."""
        own = torch.arange(encoded.share.start, encoded.share.stop)
        top_k = self.top_k if self.rerank else LISTED
        texts = preselect(encoded.image[own], encoded.text, top_k, column=encoded.distinct)
        images = preselect(encoded.text, encoded.image, top_k)
        text_logits = image_logits = None
        if self.rerank:
            text_logits, image_logits = self._rescore(
                model, encoded, store, device, texts=texts, images=images
            )
        rows = torch.tensor(distributed.shard(len(encoded.owner)), dtype=torch.long)
        said = encoded.distinct[rows]
        to_texts = rank(
            encoded.image[own],
            encoded.text,
            own,
            encoded.owner,
            texts,
            text_logits,
            column=encoded.distinct,
            add_cosine=self.add_cosine,
        )
        to_images = rank(
            encoded.text[said],
            encoded.image,
            encoded.owner[rows],
            torch.arange(len(encoded.image)),
            images[said],
            None if image_logits is None else image_logits[said],
            add_cosine=self.add_cosine,
        )
        return _gather_ranking(to_texts), _gather_ranking(to_images)

    def _rescore(
        self,
        model: Embeds,
        encoded: Encoded,
        store: TokenStore,
        device: torch.device,
        *,
        texts: Tensor,
        images: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Match logits of the texts chosen for this process's images and images chosen for texts.

        A pair that both directions chose is computed once, by the process that has the image.

        Args:
            model: matches.
            encoded: the dataset.
            store: tokens of this process's images.
            device: of the model.
            texts: (own images, K) chosen texts.
            images: (U, K) chosen images of all distinct texts.
        """
        num_texts = len(encoded.text)
        by_image = torch.arange(len(texts))[:, None] * num_texts + encoded.distinct[texts]
        place = images - encoded.share.start
        mine = (place >= 0) & (place < len(encoded.share))
        by_text = place * num_texts + torch.arange(num_texts)[:, None]
        codes = torch.cat([by_image.flatten(), by_text[mine]]).unique()  # ascending
        pairs = torch.stack([codes // num_texts, codes % num_texts], dim=1)
        logits = match_logits(
            cast(Ranks, model), store, encoded.texts, pairs, self.chunk_size, device
        )
        demand_numbers(logits, "retrieval", "a match logit")
        image_logits = torch.zeros(images.shape)
        image_logits[mine] = logits[torch.searchsorted(codes, by_text[mine])]
        return logits[torch.searchsorted(codes, by_image)], distributed.all_reduce(image_logits)


def _counts(
    data: EvaluationData, known: Pairs, used: Pairs, left_out: dict[str, list[int]]
) -> dict[str, Counts]:
    """Count the images and texts that the figures are of."""
    empty, alone = left_out["empty text"], left_out["no text"]
    image_of = {row.index: known.images[row.image].index for row in known.texts}
    images = count_images(data, known, [row.index for row in used.images], {"no text": alone})
    rows = range(len(data.dataset))
    kept = [row.index for row in used.texts]
    return {"images": images, "texts": count(data, rows, kept, {"empty text": empty}, image_of)}


def _gather(parts: list[Tensor]) -> Tensor:
    """Rows of all processes in rank order; a process may have none."""
    gathered = distributed.all_gather_object(torch.cat(parts) if parts else None)
    return torch.cat([part for part in gathered if part is not None])


def _gather_ranking(ranking: Ranking) -> Ranking:
    return Ranking(*(distributed.all_gather(part) for part in ranking))


def predictions(pairs: Pairs, to_texts: Ranking, to_images: Ranking) -> list[dict[str, Any]]:
    """A row per query: ``query`` is "image" or "text", ``results`` its best five candidates."""
    rows: list[dict[str, Any]] = []
    for place, image in enumerate(pairs.images):
        found = [
            {"key": text.key, "text": text.text, "score": score, "correct": text.image == place}
            for number, score in _listed(to_texts, place)
            for text in [pairs.texts[number]]
        ]
        rows.append(
            {"query": "image", **vars(image), "rank": _place(to_texts, place), "results": found}
        )
    for place, row in enumerate(pairs.texts):
        found = [
            {**vars(pairs.images[number]), "score": score, "correct": number == row.image}
            for number, score in _listed(to_images, place)
        ]
        query = {"index": row.index, "key": row.key, "text": row.text}
        query["image_id"] = pairs.images[row.image].image_id
        rows.append({"query": "text", **query, "rank": _place(to_images, place), "results": found})
    return rows


def _listed(ranking: Ranking, query: int) -> list[tuple[int, float]]:
    numbers, scores = ranking.listed[query].tolist(), ranking.scores[query].tolist()
    return [(number, round(score, 5)) for number, score in zip(numbers, scores, strict=True)]


def _place(ranking: Ranking, query: int) -> int:
    """1 is best; candidates with the same score count as behind."""
    return int(ranking.above[query]) + 1
