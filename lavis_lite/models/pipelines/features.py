"""The pipeline that gives features: of pictures, or of texts in their space."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lavis_lite.config.calls import checked_options
from lavis_lite.errors import ConfigError
from lavis_lite.models.pipelines.base import Ask, Batch, Pipeline
from lavis_lite.models.pipelines.scoring import texts_given
from lavis_lite.modules.interfaces import Embeds

Kind = bool | Literal["pt"] | None


class FeatureExtraction(Pipeline):
    """Gives features: nested lists or tensors, (1, N, D) tokens of each picture.

    With ``pool=True`` they are (1, E), of unit length, in the space that pictures share with texts.
    """

    task, needs, gives = "feature-extraction", "features", "the features"

    def __call__(self, inputs: object = None, *, text: object = None, **options: object) -> object:
        """Give the features of pictures, see ``Pipeline``; or of texts.

        Args:
            inputs: one picture, or several.
            text: one text, or several, in place of pictures.
            options: ``return_tensors`` ("pt" or True) for tensors, ``pool``, and those of
                ``Pipeline``.
        """
        if text is None:
            return super().__call__(inputs, **options)  # type: ignore[arg-type]
        if inputs is not None:
            raise ConfigError("text: give pictures or texts, not both in one call")
        self.prepare(**self._checked(options))  # type: ignore[arg-type]
        texts = texts_given(text, "text")
        found = self._text_features(texts, bool(options.get("pool")))
        rows = [_as_asked(one[None], options.get("return_tensors")) for one in found]
        return rows[0] if isinstance(text, str) else rows

    @checked_options
    def prepare(self, return_tensors: Kind = None, pool: bool = False) -> Ask:
        """Check the options and return what encodes a batch.

        Args:
            return_tensors: ``"pt"`` or True: tensors in place of nested lists.
            pool: one vector of the joint space in place of tokens.
        """
        session = self.session
        if pool and not session.can(Embeds):
            raise ConfigError(f"pool: {type(self.model).__name__} has no space of pooled features")

        def ask(batch: Batch) -> list[object]:
            tokens = session.model.encode_image(batch.pixels.to(session.device))
            found = session.model.image_features(tokens) if pool else tokens
            finite = found.isfinite().flatten(1).all(1).tolist()
            return [
                _as_asked(one[None], return_tensors) if good else None
                for one, good in zip(found, finite, strict=True)
            ]

        return ask

    def _text_features(self, texts: list[str], pool: bool) -> list[Tensor]:
        model = self.session.model
        if not hasattr(model, "encode_text"):
            raise ConfigError(f"text: {type(model).__name__} gives no features of texts alone")
        with torch.no_grad():
            states = [model.encode_text([self.session.text(text)]) for text in texts]
            return [(model.text_features(one) if pool else one)[0] for one in states]


def _as_asked(features: Tensor, return_tensors: object) -> object:
    features = features.float().cpu()
    return features if return_tensors else features.tolist()
