"""Captions of a test set, scored against people's."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from lavis_lite import registry
from lavis_lite.metrics.captioning.bleu import bleu
from lavis_lite.metrics.captioning.cider import cider_d
from lavis_lite.metrics.captioning.java import check_names, java_scores
from lavis_lite.metrics.captioning.rouge import rouge_l
from lavis_lite.metrics.captioning.words import split_words
from lavis_lite.metrics.columns import Chief, Column
from lavis_lite.metrics.generate import check_generation, count_described, generate_captions
from lavis_lite.metrics.pairs import demand
from lavis_lite.modules.interfaces import Context, Evaluation, EvaluationData, Generates, Matches

log = logging.getLogger(__name__)


def caption_scores(captions: list[str], references: list[list[str]]) -> dict[str, float]:
    """BLEU-1 to 4, ROUGE-L (all in [0, 1]) and CIDEr-D (in [0, 10]) of one caption per image.

    pycocoevalcap's figures, up to its Java tokenizer: see ``words.py``; METEOR and SPICE, which
    need Java, are in ``java.py``.
    """
    words = [split_words(caption) for caption in captions]
    texts = [[split_words(text) for text in row] for row in references]
    figures = {f"bleu_{order}": value for order, value in enumerate(bleu(words, texts), start=1)}
    return {**figures, "rouge_l": rouge_l(words, texts), "cider_d": cider_d(words, texts)}


@registry.register("metric", "caption")
class Caption:
    """BLEU, ROUGE-L and CIDEr-D of one generated caption per image.

    An image without a reference is described and not scored; where none has one, no figure is
    given, only the captions. Where images are known by numbers, as those of COCO and NoCaps, the
    captions are also written in the format of their evaluation servers.

    Args:
        generate: arguments of the model's ``generate``; empty are the model's defaults.
        match: also ask the model how probable it is that its caption fits (mean as ``match``);
            it must be able to match.
        java: figures that need Java and `pip install 'lavis_lite[metrics]'`: `meteor`, `spice`.
            Where something is missing they are n/a, with the reason.
    """

    requires = (Generates,)
    requires_if: ClassVar = {"match": ((Matches,), "`match: false` leaves the probabilities out")}
    title = "Captions"
    counted = "images"
    columns = (
        *(Column(f"bleu_{order}", f"BLEU-{order}", digits=3) for order in range(1, 5)),
        Column("rouge_l", "ROUGE-L", digits=3),
        Column("cider_d", "CIDEr-D", digits=3),
        Column("meteor", "METEOR", digits=3),
        Column("spice", "SPICE", digits=3),
        Column("match", "fits", digits=3),
    )
    chief = Chief("cider_d", "CIDEr-D of generated captions", digits=2)

    def __init__(
        self,
        generate: dict[str, Any] | None = None,
        match: bool = False,
        java: list[str] | None = None,
    ) -> None:
        check_names(java or [])
        self.generate = generate or {}
        self.match = match
        self.java = java or []

    def check(self, model: Generates) -> None:
        """Refuse a model that lacks what the arguments ask for (ConfigError)."""
        demand(model, "caption", self)
        check_generation(model, self.generate)

    def evaluate(self, model: Generates, data: EvaluationData, runner: Context) -> Evaluation:
        """Figures, and per image its caption and references."""
        self.check(model)
        rows = generate_captions(model, data, runner, self.generate, match=self.match)
        scored = [row for row in rows if row["references"]]
        counts = {"images": count_described(data, rows, scored, "no reference")}
        if not scored:
            log.warning("caption: no image has a reference; captions are written, not scored")
            return Evaluation({}, rows, _submission(rows), counts=counts)
        captions = [row["caption"] for row in scored]
        references = [row["references"] for row in scored]
        figures = caption_scores(captions, references)
        slow, missing = java_scores(self.java, captions, references)
        if self.match:
            figures["match"] = sum(row["match"] for row in rows) / len(rows)
            counts["matched captions"] = count_described(data, rows, rows, "")
        return Evaluation({**figures, **slow}, rows, _submission(rows), missing, counts)


def _submission(rows: list[dict[str, Any]]) -> Any:
    """COCO's format of results, which NoCaps' server takes too; None for images without numbers."""
    if not all(isinstance(row["image_id"], int) for row in rows):
        return None
    return [{"image_id": row["image_id"], "caption": row["caption"]} for row in rows]
