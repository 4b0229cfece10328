"""Published pairs of the web: millions of pictures with their alternative texts."""

from __future__ import annotations

from typing import Any, Unpack

from lavis_lite import registry
from lavis_lite.data.counts import Counts
from lavis_lite.data.files.rows import FileOptions, Rows
from lavis_lite.data.files.shards import WebDataset
from lavis_lite.data.published import cards
from lavis_lite.data.published.base import Published, Row
from lavis_lite.errors import ConfigError, DataError

_ARGUMENTS = """
    Args:
        split: `train`, the only one.
        shards: tar shards, see `webdataset`; by default the card's, below `root`.
        images, annotations: in place of shards, a folder and a JSON list of {image, caption}.
        root: the folder of all data.
        options: as for `json`.

    Raises:
        DataError: missing or broken shards, files or images.
"""


class _Listed(Published):
    """A JSON list of images and captions, with the card of a dataset that may also be in shards."""

    def __init__(self, card: cards.DatasetCard, **arguments: Any):
        self.card = card
        super().__init__(**arguments)


class WebPairs(Rows):
    """Pairs in tar shards, or in a list of images and captions; a subclass names its card."""

    card: cards.DatasetCard
    splits: tuple[str, ...]

    def __init_subclass__(cls, card: str, **others: object) -> None:
        super().__init_subclass__(**others)
        cls.card = cards.card(card)
        cls.splits = cls.card.splits
        cls.__doc__ = f"{cls.__doc__}\n{_ARGUMENTS}"

    def __init__(
        self,
        split: str | None = None,
        shards: str | list[str] | None = None,
        images: str | None = None,
        annotations: str | list[str] | None = None,
        root: str = cards.ROOT,
        **options: Unpack[FileOptions],
    ):
        self.card.check_split(split)
        self._pairs: WebDataset | _Listed
        if images is None and annotations is None:
            self._pairs = self._in_shards(shards or f"{root}/{self.card.shards}", options)
        elif self.card.images is None or shards is not None:
            raise ConfigError(
                f"{self.card.name}: give shards, or images and annotations, not both"
                if self.card.images
                else f"{self.card.name}: comes in shards only; name them with shards:"
            )
        else:
            where_from = {"images": images, "annotations": annotations, "root": root}
            self._pairs = _Listed(self.card, **where_from, **options)
        self.name, self.decode = self.card.name, self._pairs.decode
        self.problems: list[str] = getattr(self._pairs, "problems", [])

    def _in_shards(self, shards: str | list[str], options: FileOptions) -> WebDataset:
        try:
            return WebDataset(shards, **options)
        except DataError as error:
            raise DataError(f"{self.card.name}: {error}\n  {self.card.advice()}") from None

    @property
    def counts(self) -> Counts:
        """The counts of the shards or of the list."""
        return self._pairs.counts

    def _count(self) -> int:
        return len(self._pairs)

    def _row(self, number: int) -> Row:
        return self._pairs[number]

    def _annotation(self, number: int) -> Row:
        return self._pairs.annotation(number)


@registry.register("dataset", "cc3m")
class Cc3m(WebPairs, card="cc3m"):
    """Conceptual Captions: three million pictures of the web with cleaned alternative texts."""


@registry.register("dataset", "cc12m")
class Cc12m(WebPairs, card="cc12m"):
    """Conceptual 12M: twelve million pictures of the web with alternative texts."""


@registry.register("dataset", "sbu")
class Sbu(WebPairs, card="sbu"):
    """SBU Captions: a million photographs of Flickr with their owners' captions."""


@registry.register("dataset", "laion")
class Laion(WebPairs, card="laion"):
    """LAION: pictures of the web with alternative texts chosen by CLIP."""
