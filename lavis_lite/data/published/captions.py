"""Published pairs of images and captions."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from lavis_lite import registry
from lavis_lite.data.files.annotations import num_captions
from lavis_lite.data.files.bad_rows import BadRow, each
from lavis_lite.data.files.cells import row_id
from lavis_lite.data.files.tables import read
from lavis_lite.data.published.base import Published, Row, demand

_NUMBER = re.compile(r"\d+$")


class CaptionPairs(Published):
    """Images with captions, in LAVIS's files per split or Karpathy's one of all splits."""

    def rows_of(self, files: list[str]) -> Iterator[Row | BadRow]:
        """The rows of this split; Karpathy's `restval` is trained on, as BLIP does."""
        accepted_splits = {None, "", self.split, *(("restval",) if self.split == "train" else ())}
        for row in read(files, self.kind):
            if isinstance(row, BadRow) or row.get("split") in accepted_splits:
                yield row
            else:
                self.left_out[f"split {row['split']!s:.20}"] += num_captions(row)


class CocoPairs(CaptionPairs):
    """Rows whose `image_id` is COCO's number of the image, which the servers ask for."""

    def rows_of(self, files: list[str]) -> Iterator[Row | BadRow]:
        """The rows of this split, numbered by the names of their images."""
        yield from each(super().rows_of(files), _numbered)


def _numbered(row: Row) -> Row:
    image = row.get("image")
    number = _NUMBER.search(PurePosixPath(image).stem) if isinstance(image, str) else None
    return {**row, "image_id": int(number[0])} if number else row


@registry.register("dataset", "coco_caption")
class CocoCaption(CocoPairs, card="coco_caption"):
    """COCO's photographs with five captions each, Karpathy's splits."""


@registry.register("dataset", "coco_retrieval")
class CocoRetrieval(CocoPairs, card="coco_retrieval"):
    """COCO's photographs and captions for retrieval, Karpathy's splits."""


@registry.register("dataset", "flickr30k")
class Flickr30k(CaptionPairs, card="flickr30k"):
    """Flickr30k's photographs and captions for retrieval."""


@registry.register("dataset", "flickr30k_caption")
class Flickr30kCaption(CaptionPairs, card="flickr30k_caption"):
    """Flickr30k's photographs, to be described."""


@registry.register("dataset", "vg_caption")
class VgCaption(Published, card="vg_caption"):
    """Visual Genome's photographs with descriptions of their regions."""


@registry.register("dataset", "nocaps")
class NoCaps(Published, card="nocaps"):
    """NoCaps' photographs; those of `val` with ten captions and a `domain` (in, near, out)."""

    def rows_of(self, files: list[str]) -> Iterator[Row | BadRow]:
        """Rows of BLIP's list of images, with the benchmark's captions; either file may be alone.

        BLIP's file says where the images are, the benchmark's has captions and domains.
        """
        pictures: list[Any] = []
        captions: dict[int | str, Row] = {}
        bad: list[BadRow] = []
        for file, data in self._json(files):
            if isinstance(data, list):
                pictures += each(data, functools.partial(_picture, file=file))
                continue
            for row in read(file, self.kind):
                if isinstance(row, BadRow):
                    bad.append(row)
                else:
                    captions[row_id(row["image_id"])] = row
        if not pictures:
            pictures = [
                {"image": f"{self.split}/{row['image']}", "img_id": number}
                for number, row in captions.items()
            ]
        shown = {one["img_id"] for one in pictures if not isinstance(one, BadRow)}
        if lost := sum(
            num_captions(row) for number, row in captions.items() if number not in shown
        ):
            self.left_out["captions of images that are not listed"] = lost
        yield from each(pictures, lambda picture: _captioned(picture, captions))
        yield from bad


def _picture(row: Row, file: str) -> Row:
    demand(row, ("image", "img_id"), file)
    return {**row, "img_id": row_id(row["img_id"])}


def _captioned(picture: Row, captions: dict[int | str, Row]) -> Row:
    number = picture["img_id"]
    known = captions.get(number, {})
    domain = {"domain": known["domain"]} if "domain" in known else {}
    caption = known.get("caption", picture.get("caption", ""))
    return {"image": picture["image"], "caption": caption, "image_id": number, **domain}
