"""The fit of a text and its image by a model: matching and cosine."""

from __future__ import annotations

from typing import ClassVar, Literal

from lavis_lite import registry
from lavis_lite.modules.interfaces import Embeds, EncodesImage, Matches
from lavis_lite.projects.blip.capfilt.config import Filter
from lavis_lite.projects.blip.capfilt.filter import TextJudge
from lavis_lite.projects.blip.capfilt.scoring import ScoreBatch


class _ByModel:
    of = "text"
    score_of_filter: ClassVar[Literal["itm", "itc"]]

    def __init__(self, *, model: EncodesImage, batch_size: int) -> None:
        self.model = model
        self._judge = TextJudge(model, Filter("", score=self.score_of_filter), batch_size)

    def score(self, batch: ScoreBatch) -> list[float]:
        """Return a score for each pair of a batch."""
        if not batch.pairs:
            return []
        return self._judge.score_tokens(batch.tokens(self.model), batch.pairs)


@registry.register("scorer", "itm")
class MatchingScore(_ByModel):
    """The probability in [0, 1] that a text matches its image, by a model that can `match`.

    Args:
        model: such as ``blip_image_text_matching``.
        batch_size: texts at a time.
    """

    requires = (Matches,)
    span = (0.0, 1.0)
    score_of_filter = "itm"

    def __init__(self, *, model: Matches, batch_size: int) -> None:
        super().__init__(model=model, batch_size=batch_size)


@registry.register("scorer", "itc")
class CosineScore(_ByModel):
    """The cosine in [-1, 1] of text and image, by any model that embeds both.

    Of a BLIP model it is the score of ITC; of a CLIP or SigLIP model what DataComp filters by.

    Args:
        model: such as ``clip``, ``siglip`` or ``blip_image_text_matching``.
        batch_size: texts at a time.
    """

    requires = (Embeds,)
    span = (-1.0, 1.0)
    score_of_filter = "itc"

    def __init__(self, *, model: Embeds, batch_size: int) -> None:
        super().__init__(model=model, batch_size=batch_size)
