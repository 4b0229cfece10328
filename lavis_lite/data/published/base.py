"""Published datasets: their cards say where the files are, a subclass reads their format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar, Unpack

from lavis_lite.data.files.annotations import Annotations
from lavis_lite.data.files.bad_rows import BadRow
from lavis_lite.data.files.rows import FileOptions
from lavis_lite.data.files.tables import find, foreign, load_json, read
from lavis_lite.data.published import cards
from lavis_lite.errors import DataError, listed

Row = dict[str, Any]
ARGUMENTS = """
    Args:
        split: one of the card's; the first by default.
        images: the folder that the annotations' image paths start from; by default the card's,
            below `root`.
        annotations: the annotation file or files, or their folder; by default the card's, below
            `root`, and fetched where they have an address and are not there.
        root: the folder of all data.
        options: as for `json`.

    Raises:
        ConfigError: no such split.
        DataError: missing files or images, or another format.
        DownloadError: annotations that could not be fetched.
"""


class Published(Annotations):
    """A dataset with a card. A subclass says what the rows of its files are (`rows_of`)."""

    card: cards.DatasetCard
    splits: tuple[str, ...]
    columns: ClassVar[tuple[str | None, ...]] = (None, None, None, None)  # as `Annotations` has it
    kind = "json"

    def __init_subclass__(cls, card: str | None = None, **others: object) -> None:
        super().__init_subclass__(**others)
        if card is not None:
            cls.card = cards.card(card)
            cls.splits = cls.card.splits
            cls.__doc__ = f"{cls.__doc__}\n{ARGUMENTS}"

    def __init__(
        self,
        split: str | None = None,
        images: str | None = None,
        annotations: str | list[str] | None = None,
        root: str = cards.ROOT,
        **options: Unpack[FileOptions],
    ):
        self.split = self.card.check_split(split)
        folder = self.card.images_folder(images, root)
        files = self.card.files(self.split, annotations, root)
        name = f"{self.card.name}-{self.split}"
        self._never = self.left_out = Counter[str]()
        try:
            with foreign(", ".join(files), "rows of its format"):
                self._read(self.rows_of(files), files, folder, self.columns, name)
        except DataError as error:
            raise DataError(f"{self.card.name}: {error}\n  {self.card.advice()}") from None
        self._finish(**options)

    def rows_of(self, files: list[str]) -> Iterator[Row | BadRow]:
        """The rows of annotation files, with the fields that ``columns`` names.

        A subclass counts the rows that it leaves out in ``left_out``.
        """
        return read(files, self.kind)

    def _json(self, files: list[str]) -> Iterator[tuple[str, Any]]:
        """The contents of JSON files with their paths."""
        for file in find(files):
            yield str(file), load_json(file)


def demand(row: Row, fields: tuple[str, ...], file: str) -> None:
    """Refuse a row of another format.

    Raises:
        DataError: which field it lacks, and which it has.
    """
    for name in fields:
        if name not in row:
            raise DataError(f"{file}: a row without {name!r}; it has {listed(row)}")
