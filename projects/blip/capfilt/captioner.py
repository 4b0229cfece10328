"""Captions for a batch of images, each a function of seed and key."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.metrics.counts import not_finite
from lavis_lite.metrics.finite import ask_each
from lavis_lite.runners.process import seed_everything

NUCLEUS = {"method": "nucleus", "top_p": 0.9}


class Failure(NamedTuple):
    """The reason why an image has no captions, its kind before a colon.

    ``of_image``: it lies in the image or the model's numbers, so that nothing can be said about
    that image; otherwise only these captions are missing.
    """

    reason: str
    of_image: bool = False


class CaptionWriter:
    """Asks a model that can `generate` for the same captions, whenever it is asked.

    Args:
        model: the captioner.
        options: for its `generate`.
        seed: of the run.
    """

    def __init__(self, model: Any, options: Mapping[str, Any], seed: int) -> None:
        self.model = model
        self.options = with_defaults(type(model), options)
        self.num_captions = int(self.options.get("num_captions", 1))
        self.seed = seed
        self._takes_seeds = "seeds" in inspect.signature(model.generate).parameters

    @property
    def reads_pictures(self) -> bool:
        """True for a captioner that takes images as they are, not as pixels of one size."""
        return getattr(type(self.model), "reads_pictures", False)

    def write(self, images: Tensor, keys: list[str]) -> list[list[str] | Failure]:
        """The captions of each image; a Failure of one for which the model gives no numbers.

        Args:
            images: (B, 3, H, W).
            keys: of the B samples.
        """

        def ask(rows: list[int]) -> list[list[str]]:
            pixels = images if len(rows) == len(keys) else images[rows]
            return self._write(pixels, [keys[row] for row in rows])

        failure = Failure(not_finite("the logits of a text"), of_image=True)
        return [failure if own is None else own for own in ask_each(ask, len(keys))]

    def write_about(
        self, pictures: list[Image.Image], keys: list[str]
    ) -> list[list[str] | Failure]:
        """The captions of each image, by a captioner that ``reads_pictures``.

        Args:
            pictures: B images.
            keys: of the B samples.
        """
        answers = self.model.ask(pictures, self._seeds(keys), **self.options)
        return [Failure(one) if isinstance(one, str) else one for one in answers]

    def _seeds(self, keys: list[str]) -> list[int]:
        return [stable_hash("caption", self.seed, key) for key in keys]

    def _write(self, images: Tensor, keys: list[str]) -> list[list[str]]:
        options = dict(self.options)
        if self._takes_seeds:
            options["seeds"] = self._seeds(keys)
        else:  # a function of the batch, which is the same whoever works on the shard
            seed_everything("caption", self.seed, *keys)
        flat = [text.strip() for text in self.model.generate({"image": images}, **options)]
        each = self.num_captions
        assert len(flat) == each * len(keys), f"{len(flat)} captions of {len(keys)} images"
        return [flat[place : place + each] for place in range(0, len(flat), each)]


def with_defaults(model: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, and nucleus sampling where they name no method and the model has several."""
    parameters = inspect.signature(model.generate).parameters  # type: ignore[attr-defined]
    chosen = {"method", "use_nucleus_sampling", "num_beams"} & options.keys()
    if chosen or "method" not in parameters:
        return dict(options)
    return {**NUCLEUS, **options}


def option_problems(model: type, options: Mapping[str, Any], key: str = "captioner") -> list[str]:
    """Return the problems of options for a model's `generate`, without building the model.

    Args:
        model: its class.
        options: for its `generate`.
        key: of the captioner in the config.
    """
    parameters = inspect.signature(model.generate).parameters  # type: ignore[attr-defined]
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return []
    known = [name for name in parameters if name not in ("self", "samples", "seeds")]
    return [
        f"{key}.generate.{name}: {model.__name__}.generate takes no {name!r}."
        f"{suggest(name, known)} It takes: {', '.join(known)}"
        for name in options
        if name not in known
    ]


def check_options(model: type, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for options that a model's `generate` does not take."""
    if problems := option_problems(model, options):
        raise ConfigError("\n".join(problems))
