"""Agreement of a model's scores, and of caption metrics, with people's judgements of captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
from torch import Tensor

from lavis_lite import registry
from lavis_lite.data.counts import Counts
from lavis_lite.errors import ConfigError, DataError, suggest
from lavis_lite.metrics.captioning.bleu import bleu
from lavis_lite.metrics.captioning.cider import cider_d_each
from lavis_lite.metrics.captioning.words import split_words
from lavis_lite.metrics.columns import OTHERS, Chief, Column
from lavis_lite.metrics.counts import count, demand_some
from lavis_lite.metrics.generate import match_probability
from lavis_lite.metrics.itm import area_under_curve
from lavis_lite.metrics.rows import Row, predict_rows, refuse_not_finite
from lavis_lite.modules.interfaces import (
    Context,
    Embeds,
    Evaluation,
    EvaluationData,
    Matches,
)
from lavis_lite.modules.output import Samples
from lavis_lite.registry.capabilities import Capability, missing_from

MODEL_SCORES: dict[str, Capability] = {"itm": Matches, "itc": Embeds}
TEXT_SCORES = ("bleu4", "cider_d")


@registry.register("metric", "judgements")
class Judgements:
    """Agreement of scores with people who judged captions of images.

    The rows have a caption each, and `scores` of experts (1 unrelated to 4 without error) or the
    counts `yes` and `no` of a crowd. Figures per score, as `itm/tau_c`:

    - ``tau_b``, ``tau_c``: Kendall's rank correlations in %, between the score of a caption and
      every single expert's answer (a caption of three experts counts three times), or the crowd's
      share of yes, as the literature on caption metrics reports them (CLIPScore, arXiv:2104.08718,
      section 4.1). Captions that were written for the very image are left out there.
    - ``auc`` in [0, 1]: chance that a caption that people accept (experts: mean above 3; crowd:
      more yes than no) has a higher score than one that they do not. All captions count.
    - ``precision``, ``recall`` in [0, 1]: of the captions with a score above ``threshold``.

    Args:
        scores: `itm` (probability of a match), `itc` (cosine of the embeddings), `cider_d` and
            `bleu4` (against the `references` of a row, no model needed); by default those of the
            first two that the model has.
        threshold: of the filter whose precision is told, for `itm`.
    """

    requires = ()  # of the model alone: its scores ask for what they need
    title = "Agreement with people"
    counted = "judged captions"
    columns = (
        Column("itm/tau_c", "tau-c", "ITM", unit="%"),
        Column("itm/auc", "AUC", "ITM", digits=3),
        Column("itc/tau_c", "tau-c", "ITC", unit="%"),
        Column("itc/auc", "AUC", "ITC", digits=3),
        Column(OTHERS, digits=3, shown=False),
    )
    chief = Chief("itm/auc", "AUC against people's judgement", "%", factor=100)

    def __init__(self, scores: list[str] | None = None, threshold: float = 0.5) -> None:
        known = (*MODEL_SCORES, *TEXT_SCORES)
        for name in scores or []:
            if name not in known:
                raise ConfigError(
                    f"judgements.scores: no {name!r}.{suggest(name, known)} Known: {list(known)}"
                )
        self.scores, self.threshold = scores, threshold

    def check(self, model: object) -> None:
        """Refuse a model that lacks what the scores ask for (ConfigError)."""
        for name in self.scores or []:
            if name in MODEL_SCORES and (lacking := missing_from(model, [MODEL_SCORES[name]])):
                raise ConfigError(
                    f"judgements.scores: {name} requires {', '.join(lacking)}, which "
                    f"{type(model).__name__} lacks"
                )
        if not self._of(model):
            raise ConfigError(
                f"judgements: {type(model).__name__} neither matches nor embeds; "
                f"scores: {list(TEXT_SCORES)} need no model"
            )

    def evaluate(self, model: Any, data: EvaluationData, runner: Context) -> Evaluation:
        """Figures, and per caption its scores and people's judgement."""
        self.check(model)
        names = self._of(model)

        def score(samples: Samples, rows: list[Row]) -> list[Row]:
            found = [_judgement(row) for row in rows]
            for name in names:
                if name in MODEL_SCORES:
                    values = _SCORERS[name](model, samples)
                    refuse_not_finite(values, f"the score {name}")
                    for row, value in zip(found, values.tolist(), strict=True):
                        row[name] = round(value, 6)
            return found

        rows = predict_rows(model, data, runner, score)
        for name in names:
            if name in TEXT_SCORES:
                _add_text_scores(name, rows)
        unjudged = {"no judgement": [row["index"] for row in rows if not row["ratings"]]}
        rows = [row for row in rows if row["ratings"]]
        others = [row for row in rows if not row["own"]]
        figures: dict[str, float] = {}
        for name in names:
            figures |= {f"{name}/{key}": v for key, v in _taus(name, others).items()}
            figures |= {f"{name}/{key}": v for key, v in self._as_filter(name, rows).items()}
        return Evaluation(figures, rows, counts=self._counts(data, rows, unjudged))

    def _counts(
        self, data: EvaluationData, rows: list[Row], unjudged: dict[str, list[int]]
    ) -> dict[str, Counts]:
        """Count the captions that figures are of: AUC and precision of all, the taus of others'."""
        total = range(len(data.dataset))
        judged = count(data, total, [row["index"] for row in rows], unjudged)
        demand_some(judged, "judgements")
        own = {"written for the image": [row["index"] for row in rows if row["own"]]}
        others = [row["index"] for row in rows if not row["own"]]
        return {
            self.counted: judged,
            "ranked captions": count(data, total, others, unjudged | own),
        }

    def _of(self, model: object) -> list[str]:
        if self.scores is not None:
            return self.scores
        return [name for name, need in MODEL_SCORES.items() if not missing_from(model, [need])]

    def _as_filter(self, name: str, rows: list[Row]) -> dict[str, float]:
        scores = numpy.array([row[name] for row in rows])
        good = numpy.array([row["accepted"] for row in rows], bool)
        if good.all() or not good.any():
            return {}
        figures = {"auc": area_under_curve(scores[good], scores[~good])}
        if name == "itm":
            kept = scores > self.threshold
            if kept.any():
                figures["precision"] = float(good[kept].mean())
            figures["recall"] = float(kept[good].mean())
        return figures


def _judgement(row: Row) -> Row:
    """People's answers about a row: what scores are ranked against; none where nobody answered."""
    ratings, accepted = _answers(row)
    return {
        "text": row["text_input"],
        "references": list(row.get("references") or []),
        "own": bool(row.get("own", False)),
        "ratings": ratings,
        "accepted": accepted,
    }


def _answers(row: Row) -> tuple[list[float], bool]:
    if scores := row.get("scores"):
        return [float(score) for score in scores], sum(scores) > 3 * len(scores)
    yes, no = row.get("yes") or 0, row.get("no") or 0
    return ([yes / (yes + no)] if yes + no else []), yes > no


def _itm(model: Any, samples: Samples) -> Tensor:
    return match_probability(model, model.encode_image(samples["image"]), samples["text_input"])


def _itc(model: Any, samples: Samples) -> Tensor:
    image = model.image_features(model.encode_image(samples["image"]))
    text = model.text_features(model.encode_text(samples["text_input"]))
    return (image.float() * text.float()).sum(-1).cpu()


_SCORERS: dict[str, Callable[[Any, Samples], Tensor]] = {"itm": _itm, "itc": _itc}


def _add_text_scores(name: str, rows: list[Row]) -> None:
    if any(not row["references"] for row in rows):
        raise DataError(f"judgements: {name} needs `references`, captions of the row's image")
    # A caption is not compared with itself.
    references = [[t for t in row["references"] if t != row["text"]] for row in rows]
    words = [[split_words(text) for text in texts] for texts in references]
    captions = [split_words(row["text"]) for row in rows]
    if name == "cider_d":
        values = cider_d_each(captions, words)
    else:
        values = [bleu([one], [texts])[3] for one, texts in zip(captions, words, strict=True)]
    for row, value in zip(rows, values, strict=True):
        row[name] = value


def _taus(name: str, rows: Sequence[Row]) -> dict[str, float]:
    """Kendall's tau-b and tau-c in %, a caption once for each rating of it."""
    try:
        from scipy.stats import kendalltau
    except ImportError as error:
        raise ConfigError(
            f"judgements needs scipy ({error}): pip install 'lavis_lite[metrics]'"
        ) from None
    pairs = [(row[name], rating) for row in rows for rating in row["ratings"]]
    scores, ratings = zip(*pairs, strict=True) if pairs else ((), ())
    if len(set(scores)) < 2 or len(set(ratings)) < 2:
        return {}
    return {
        f"tau_{kind}": 100 * float(kendalltau(scores, ratings, variant=kind).statistic)
        for kind in ("b", "c")
    }
