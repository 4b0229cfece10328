"""Caption similarity: the web's text compared with what captioners say about its image.

Reference: SIEVE, https://arxiv.org/abs/2310.02110, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lavis_lite import registry
from lavis_lite.errors import ConfigError
from lavis_lite.models.base import unit
from lavis_lite.modules.interfaces import Embeds
from lavis_lite.modules.text.hf_tokenizer import PREFIX, HfTokenizer
from lavis_lite.projects.blip.capfilt.scoring import ScoreBatch

_MOST_TOKENS = 128


@registry.register("scorer", "caption_similarity")
class CaptionSimilarity:
    """The cosine of the web's text and the caption of its image that is nearest to it, in [-1, 1].

    It has a value for web texts alone, and for those alone whose image has a caption. Give a model
    that embeds texts, or a sentence encoder of transformers; several captions by nucleus sampling
    serve it best.

    Args:
        model: whose `text_features` are compared.
        batch_size: texts at a time.
        encoder: instead, ``hf/`` and the hub id or folder of a text encoder, with its weights.
        pooling: of the encoder: ``mean``, ``first`` or ``last``.

    Raises:
        ConfigError: neither of them is given, or both are.
    """

    of = "text"
    reads = ("captions",)
    span = (-1.0, 1.0)

    def __init__(
        self,
        *,
        model: Embeds | None = None,
        batch_size: int = 64,
        encoder: str | None = None,
        pooling: str = "mean",
    ) -> None:
        if (model is None) == (encoder is None):
            raise ConfigError(
                "scorer caption_similarity: give `model`, whose text tower is used, or `encoder`, "
                "such as hf/sentence-transformers/all-MiniLM-L6-v2"
            )
        self.model, self.batch_size = model, batch_size
        if model is not None:
            missing = [n for n in ("encode_text", "text_features") if not hasattr(model, n)]
            if missing:
                raise ConfigError(
                    f"scorer caption_similarity: {type(model).__name__} lacks {', '.join(missing)}"
                )
        self.encoder = self._tokenizer = None
        if encoder is not None:
            if not encoder.startswith(PREFIX):
                raise ConfigError(
                    f"scorer caption_similarity: encoder: {encoder!r}; text encoders of "
                    f"transformers are written as {PREFIX + encoder!r}"
                )
            spec = {"name": encoder, "pretrained": True, "pooling": pooling}
            self.encoder = registry.build("text_backbone", spec).eval().requires_grad_(False)
            self._tokenizer = HfTokenizer(encoder.removeprefix(PREFIX))

    def score(self, batch: ScoreBatch) -> list[float | None]:
        """Return a value for each pair of a batch, None for one that is not compared."""
        compared = [
            slot.is_web and bool(batch.captions[pair.row])
            for pair, slot in zip(batch.pairs, batch.slots, strict=True)
        ]
        chosen = [pair for pair, wanted in zip(batch.pairs, compared, strict=True) if wanted]
        texts = dict.fromkeys(
            text for pair in chosen for text in (pair.text, *batch.captions[pair.row])
        )
        vectors = self._vectors(list(texts))
        place = {text: number for number, text in enumerate(texts)}
        nearest = iter(
            max(
                float(vectors[place[pair.text]] @ vectors[place[caption]])
                for caption in batch.captions[pair.row]
            )
            for pair in chosen
        )
        return [next(nearest) if wanted else None for wanted in compared]

    def _vectors(self, texts: list[str]) -> Tensor:
        """(T, E) unit vectors of texts, those of about one length encoded together."""
        order = sorted(range(len(texts)), key=lambda place: (len(texts[place]), place))
        found: list[Tensor] = [torch.empty(0)] * len(texts)
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            vectors = self._encode([texts[place] for place in places]).float().cpu()
            for place, vector in zip(places, vectors, strict=True):
                found[place] = vector
        return torch.stack(found) if found else torch.empty(0, 0)

    def _encode(self, texts: list[str]) -> Tensor:
        if self.encoder is None:
            assert self.model is not None
            return unit(self.model.text_features(self.model.encode_text(texts)))
        assert self._tokenizer is not None
        most = min(self.encoder.max_length or _MOST_TOKENS, _MOST_TOKENS)
        device = next(self.encoder.parameters()).device
        ids = self._tokenizer.encode(texts, most, device=device)
        states = self.encoder(ids.ids, ids.mask)
        return normalize(self.encoder.pool(states, ids.mask).float(), dim=-1)
