"""Pipelines that score texts: matching, retrieval, zero-shot classification."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath

import torch
from torch import Tensor

from lavis_lite.config.calls import checked_options
from lavis_lite.errors import ConfigError
from lavis_lite.models.pipelines import asking
from lavis_lite.models.pipelines.base import Ask, Batch, Pipeline
from lavis_lite.models.texts import as_texts
from lavis_lite.modules.interfaces import Matches
from lavis_lite.modules.layers.similarity import cosines

_TEMPLATE = "This is a photo of {}."


def texts_given(texts: object, name: str) -> list[str]:
    """Return one text or several as a list that is not empty.

    Raises:
        ConfigError: no texts, or an empty one.
    """
    found = as_texts(texts, name)
    if not found or not all(text.strip() for text in found):
        raise ConfigError(f"{name}: {'an empty text' if found else 'no texts'}; texts are expected")
    return found


class ImageTextMatching(Pipeline):
    """Tells how well texts fit pictures: ``[{"text", "score"}]`` for each, in the texts' order.

    ``score`` is the probability of a match where the model tells it, and the cosine of the
    embeddings otherwise; both have their names, ``match`` and ``cosine``, beside it.
    """

    task, needs, gives = "image-text-matching", "match", "the score of a text"

    @checked_options
    def prepare(self, text: object) -> Ask:
        """Check the texts and return what scores a batch.

        Args:
            text: one, or several.
        """
        given = texts_given(text, "text")
        texts = [self.session.text(one) for one in given]
        embeds = _features(self, texts)

        def ask(batch: Batch) -> list[object]:
            found = asking.scores(self.session, batch.pixels, texts, embeds)
            found.pop("logit", None)
            rows = []
            for row in range(len(batch.numbers)):
                values = [
                    {k: v[row, n].item() for k, v in found.items()} for n in range(len(given))
                ]
                rows.append([
                    {"text": one, "score": next(iter(scores.values())), **scores}
                    for one, scores in zip(given, values, strict=True)
                ])  # fmt: skip
            return [row if _all_finite(row) else None for row in rows]

        return ask


class ImageTextRetrieval(Pipeline):
    """Finds pictures by text: for each text ``[{"index", "score"}]``, the best first.

    ``index`` is the picture's place among the inputs, and ``image`` its path or URL where it came
    as one. ``score`` is the matching logit plus the cosine, as BLIP ranks; what there is of the two
    where a model lacks one. Pictures pass by once: no more than the best are remembered.
    """

    task, needs, gives = "image-text-retrieval", "search", "the score of a text"

    def __call__(  # type: ignore[override]
        self, inputs: object = None, *, text: object = None, top_k: int = 5, **options: object
    ) -> object:
        """Find the pictures that fit texts best; the other options are those of ``Pipeline``.

        Args:
            inputs: several pictures, see ``Pipeline``.
            text: one, or several.
            top_k: pictures of each text, at most.
            options: of ``Pipeline``.

        Returns:
            A list for one text, a list of lists for several.
        """
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise ConfigError(f"top_k: {top_k!r}; a whole number of at least 1 is expected")
        texts = texts_given(text, "text")
        found = super().__call__(inputs, text=texts, **options)  # type: ignore[arg-type]
        if isinstance(found, Mapping):
            found = [found]
        assert isinstance(found, Iterable)
        best: list[list[tuple[float, int, dict[str, object]]]] = [[] for _ in texts]
        for number, one in enumerate(found):
            if "error" in one:
                continue
            for kept, row in zip(best, one["rows"], strict=True):
                entry = (row["score"], -number, {"index": number, **row, **one["named"]})
                (heapq.heappush if len(kept) < top_k else heapq.heappushpop)(kept, entry)
        ranked = [[entry[2] for entry in sorted(kept, reverse=True)] for kept in best]
        return ranked[0] if isinstance(text, str) else ranked

    def prepare(self, text: list[str]) -> Ask:
        """Return what scores a batch for texts, which are checked."""
        texts = [self.session.text(one) for one in text]
        embeds = _features(self, texts)

        def ask(batch: Batch) -> list[object]:
            found = asking.scores(self.session, batch.pixels, texts, embeds)
            results: list[object] = []
            for row, item in enumerate(batch.inputs):
                values = [
                    {k: v[row, n].item() for k, v in found.items()} for n in range(len(texts))
                ]
                rows = [
                    {"score": sum(one.pop(k, 0.0) if k == "logit" else one.get(k, 0.0)
                                  for k in ("logit", "cosine")), **one}
                    for one in values
                ]  # fmt: skip
                named = {"image": fspath(item)} if isinstance(item, str | PathLike) else {}
                results.append({"rows": rows, "named": named} if _all_finite(rows) else None)
            return results

        return ask


class ZeroShotImageClassification(Pipeline):
    """Sorts pictures into classes that are given as texts: ``[{"score", "label"}]``, best first.

    Scores add up to 1 over the labels: a softmax of matching logits where the model matches, and of
    cosines over its temperature otherwise. Those of a model that judges pairs by themselves
    (SigLIP) are probabilities of each.
    """

    task, needs, gives = "zero-shot-image-classification", "label", "the score of a label"

    @checked_options
    def prepare(
        self,
        candidate_labels: object,
        hypothesis_template: str = _TEMPLATE,
        tokenizer_kwargs: object = None,
    ) -> Ask:
        """Check the labels and return what sorts a batch.

        Args:
            candidate_labels: the classes.
            hypothesis_template: a text with ``{}`` in the place of the label.
            tokenizer_kwargs: taken as code for transformers gives it; texts are always padded.
        """
        labels = texts_given(candidate_labels, "candidate_labels")
        if "{}" not in hypothesis_template:
            raise ConfigError(
                f"hypothesis_template: {hypothesis_template!r} has no {{}} for the label"
            )
        texts = [self.session.text(hypothesis_template.replace("{}", label)) for label in labels]
        embeds = _features(self, texts)

        def ask(batch: Batch) -> list[object]:
            chances = self._chances(batch.pixels, texts, embeds)
            order = chances.nan_to_num(-1.0).argsort(dim=1, descending=True, stable=True)
            rows = [
                [{"score": row[n], "label": labels[n]} for n in places]
                for row, places in zip(chances.tolist(), order.tolist(), strict=True)
            ]
            return [row if _all_finite(row) else None for row in rows]

        return ask

    def _chances(self, pixels: Tensor, texts: list[str], embeds: Tensor | None) -> Tensor:
        """(B, Q) the probability of each label."""
        session = self.session
        pairwise = hasattr(session.model, "logit_bias")  # of ``ContrastsPairwise``
        if embeds is None or (session.can(Matches) and not pairwise):
            return asking.scores(session, pixels, texts, None)["logit"].softmax(-1)
        tokens = session.model.encode_image(pixels.to(session.device))
        temperature = session.model.temperature.float()
        logits = cosines(session.model.image_features(tokens), embeds) / temperature
        if pairwise:
            return (logits + session.model.logit_bias.float()).sigmoid().cpu()
        return logits.softmax(-1).cpu()


def _features(pipeline: Pipeline, texts: list[str]) -> Tensor | None:
    with torch.no_grad():
        return asking.text_features(pipeline.session, texts)


def _all_finite(rows: Sequence[Mapping[str, object]]) -> bool:
    return all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
