"""Recall@k: candidates are chosen, re-scored and ranked; ties count by expectation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lavis_lite.modules.layers.similarity import cosines, num_vectors

# Numbers of a similarity matrix that exist at once; bounds memory at any number of candidates.
_CELLS = 2**22
# Every candidate that was not re-scored ranks below every one that was, as published.
_NOT_RESCORED = 100.0
LISTED = 5


def row_chunks(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Slices of rows, so many at once as a bounded part of the matrix may have.

    Args:
        num_rows: of the matrix.
        num_columns: numbers that are computed for each row.
    """
    step = max(1, _CELLS // max(1, num_columns))
    for start in range(0, max(1, num_rows), step):  # at least one, maybe without rows
        yield slice(start, min(start + step, num_rows))


def preselect(query: Tensor, candidate: Tensor, top_k: int, column: Tensor | None = None) -> Tensor:
    """The most similar candidates of each query, best first; equal ones in their order.

    Args:
        query: (Q, E) unit length; of several vectors each, (Q, P, E), as for ``cosines``.
        candidate: (C, E) unit length; or several vectors each.
        top_k: how many.
        column: (R,) where several candidates share an embedding: the row of ``candidate`` of each.

    Returns:
        (Q, min(top_k, number of candidates)).
    """
    count = len(candidate) if column is None else len(column)
    chosen = []
    for rows in row_chunks(
        len(query), max(count, num_vectors(query) * len(candidate.flatten(0, -2)))
    ):
        cosine = _cosine(query[rows], candidate, column)
        order = cosine.sort(dim=1, descending=True, stable=True).indices
        chosen.append(order[:, :top_k].cpu())
    return torch.cat(chosen)


def _cosine(query: Tensor, candidate: Tensor, column: Tensor | None) -> Tensor:
    cosine = cosines(query, candidate)
    return cosine if column is None else cosine[:, column.to(cosine.device)]


class Ranking(NamedTuple):
    """The ranking of the candidates for each of Q queries.

    Attributes:
        above: (Q,) candidates with a higher score than the best true one.
        tied: (Q,) candidates with exactly its score, itself included.
        tied_true: (Q,) true ones among those.
        listed: (Q, at most 5) the best candidates, best first.
        scores: (Q, at most 5) their scores.
    """

    above: Tensor
    tied: Tensor
    tied_true: Tensor
    listed: Tensor
    scores: Tensor


def rank(
    query: Tensor,
    candidate: Tensor,
    query_owner: Tensor,
    candidate_owner: Tensor,
    chosen: Tensor,
    logits: Tensor | None,
    column: Tensor | None = None,
    add_cosine: bool = True,
) -> Ranking:
    """Rank all candidates for each query.

    A candidate that was re-scored has match logit + cosine; any other ranks below, by its cosine.

    Args:
        query: (Q, E) unit length.
        candidate: (C, E) unit length.
        query_owner: (Q,) number of the image that a query is, or belongs to.
        candidate_owner: (R,) the same of the candidates; a candidate is true where they agree.
        chosen: (Q, K) candidates that were re-scored, best cosine first.
        logits: (Q, K) their match logits; None ranks by cosine alone.
        column: as for ``preselect``.
        add_cosine: whether the cosine counts beside the match logit.
    """
    parts: list[Ranking] = []
    compared = num_vectors(query) * len(candidate.flatten(0, -2))
    for rows in row_chunks(len(query), max(len(candidate_owner), compared)):
        cosine = _cosine(query[rows], candidate, column).double().cpu()
        picked = chosen[rows]
        scores = cosine
        if logits is not None:
            rescored = cosine.gather(1, picked) * add_cosine + logits[rows]
            scores = (cosine - _NOT_RESCORED).scatter(1, picked, rescored)
        true = query_owner[rows, None] == candidate_owner[None]
        best = scores.masked_fill(~true, -torch.inf).amax(dim=1, keepdim=True)
        tied = scores == best
        parts.append(
            Ranking(
                (scores > best).sum(1), tied.sum(1), (tied & true).sum(1), *_best(scores, picked)
            )
        )
    return Ranking(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _best(scores: Tensor, picked: Tensor) -> tuple[Tensor, Tensor]:
    picked = picked.sort(dim=1).values  # equal scores are listed in the order of the candidates
    values, order = scores.gather(1, picked).sort(dim=1, descending=True, stable=True)
    return picked.gather(1, order)[:, :LISTED], values[:, :LISTED]


def found(ranking: Ranking, k: int) -> Tensor:
    """(Q,) chance in [0, 1] that a true candidate is among the first ``k``.

    0 or 1 where no other candidate has the score of the best true one. Equal scores are taken in
    random order, and this is the exact expectation over it: a model that gives everything the same
    score gets what guessing gets, and nothing depends on the order of the candidates.
    """
    places = (k - ranking.above).clamp(min=0)  # left for the candidates of this score
    missed = torch.ones(len(places), dtype=torch.double)
    for place in range(k):
        false_left = (ranking.tied - ranking.tied_true - place).clamp(min=0)
        left = (ranking.tied - place).clamp(min=1)
        missed = torch.where(place < places, missed * false_left / left, missed)
    return 1 - missed


def recalls(prefix: str, ranking: Ranking, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """R@k in %, and their mean, as ``<prefix>_r1`` ... ``<prefix>_r_mean``."""
    figures = {f"{prefix}_r{k}": 100 * found(ranking, k).mean().item() for k in ks}
    return {**figures, f"{prefix}_r_mean": sum(figures.values()) / len(figures)}
