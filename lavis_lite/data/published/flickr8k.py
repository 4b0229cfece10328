"""Flickr8k: photographs with five captions each, and people's judgements of captions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from lavis_lite import registry
from lavis_lite.data.files.bad_rows import BadRow
from lavis_lite.data.files.encodings import open_text
from lavis_lite.data.files.tables import read
from lavis_lite.data.published.base import Published, Row
from lavis_lite.data.published.captions import CaptionPairs
from lavis_lite.errors import DataError


@registry.register("dataset", "flickr8k")
class Flickr8k(CaptionPairs, card="flickr8k"):
    """Flickr8k's photographs with five captions each.

    Read from the published files (captions of all splits, and a list of each split's images), or
    from JSON or JSON lines with a `split`, such as Karpathy's `dataset_flickr8k.json`.
    """

    def rows_of(self, files: list[str]) -> Iterator[Row | BadRow]:
        """The rows of this split."""
        if _is_published(files):
            yield from _captioned(files, self.left_out)
        else:
            self.kind = _kind(files)
            yield from super().rows_of(files)


@registry.register("dataset", "flickr8k_judgements")
class Flickr8kJudgements(Published, card="flickr8k_judgements"):
    """Answers by people to "does this caption describe this photograph?", on Flickr8k's test split.

    The splits are the two surveys, `expert` and `crowd`. A row has an image, the caption in
    question (`text_input`), `scores` (of experts, each 1 to 4) or the counts `yes` and `no` (of a
    crowd), `own` (whether the caption was written for this photograph) and `references`, the
    captions that were.
    """

    columns = ("image", "caption", None, None)

    def rows_of(self, files: list[str]) -> Iterator[Row | BadRow]:
        """The judgements of this survey, each with its caption and the image's own captions."""
        if _is_published(files):
            yield from _judged(files, self.split)
        else:
            yield from self._of_json_lines(files)

    def _of_json_lines(self, files: list[str]) -> Iterator[Row | BadRow]:
        """Rows `image`, `caption`, `kind` and people's answers; further rows have `captions`."""
        rows = [row for file in files for row in read(file, _kind([file]))]
        own = {
            Path(str(row["image"])).name: row["captions"]
            for row in rows
            if not isinstance(row, BadRow) and "captions" in row
        }
        for row in rows:
            if isinstance(row, BadRow):
                yield row
            elif "captions" in row:
                continue  # the photographs' own captions, which are no judgements
            elif row.get("kind") != self.split:
                self.left_out[f"kind {row.get('kind')!s:.20}"] += 1
            else:
                yield {**row, "references": own.get(Path(str(row["image"])).name, [])}


def _kind(files: list[str]) -> str:
    return "jsonl" if ".jsonl" in Path(files[0]).suffixes else "json"


def _is_published(files: list[str]) -> bool:
    return any(Path(file).suffix == ".txt" for file in files)


def _captioned(files: list[str], left_out: dict[str, int]) -> Iterator[Row]:
    captions, other = _tables(files)
    chosen = {fields[0] for _, fields in other}
    if missing := sorted(chosen - captions.keys()):
        raise DataError(f"{len(missing)} listed photographs have no caption, such as {missing[0]}")
    for image, texts in captions.items():
        if image in chosen:
            yield {"image": image, "caption": list(texts.values()), "image_id": image}
        else:
            left_out["another split"] += len(texts)


def _judged(files: list[str], kind: str) -> Iterator[Row | BadRow]:
    captions, other = _tables(files)
    for at, fields in other:
        try:
            image, caption_id, *answers = fields
            numbers = [float(answer) for answer in answers]
            caption = captions[caption_id.partition("#")[0]][caption_id]
            own = list(captions[image].values())
        except (ValueError, KeyError) as error:
            yield BadRow(f"damaged row: {at}: no judgement of a known caption: {error!r:.80}")
            continue
        if len(numbers) != 3:
            yield BadRow(f"damaged row: {at}: {len(numbers)} numbers, where three are expected")
            continue
        found = (
            {"scores": [int(number) for number in numbers]}
            if kind == "expert"
            else {"yes": int(numbers[1]), "no": int(numbers[2])}
        )
        is_own = caption_id.partition("#")[0] == image
        yield {"image": image, "caption": caption, "references": own, "own": is_own, **found}


def _tables(files: list[str]) -> tuple[dict[str, dict[str, str]], list[tuple[str, list[str]]]]:
    """The captions by image and caption id, and the places and fields of all other lines."""
    captions: dict[str, dict[str, str]] = defaultdict(dict)
    other = []
    for file in files:
        with open_text(Path(file)) as lines:
            for number, line in enumerate(lines, start=1):
                fields = line.rstrip("\r\n").split("\t")
                if len(fields) == 2 and "#" in fields[0]:
                    captions[fields[0].partition("#")[0]][fields[0]] = fields[1]
                elif line.strip():
                    other.append((f"{file}:{number}", fields))
    return captions, other
