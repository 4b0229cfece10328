"""From a batch of images to records: what each captioner says, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lavis_lite.projects.blip.capfilt.captioner import CaptionWriter, Failure
from lavis_lite.projects.blip.capfilt.records import Record, new_record
from lavis_lite.projects.blip.capfilt.scoring import Images


class Described(NamedTuple):
    """The captions of one image with the captioners that wrote them.

    ``missing`` has the captioners that wrote none, with the reason; ``lost`` the reason why nothing
    can be said about the image, None of others.
    """

    captions: list[str]
    sources: list[str]
    missing: dict[str, str]
    lost: str | None


def describe(
    writers: Mapping[str, CaptionWriter], images: Images, keys: list[str], several: bool
) -> list[Described]:
    """Ask every captioner about every image.

    Args:
        writers: captioner's name -> captioner.
        images: B images.
        keys: of the B samples.
        several: what one captioner cannot describe is kept, with what the others say.
    """
    found = [Described([], [], {}, None) for _ in keys]
    for name, writer in writers.items():
        if writer.reads_pictures:
            answers = writer.write_about(images.pictures, keys)
        else:
            answers = writer.write(images.of(writer.model), keys)
        for place, answer in enumerate(answers):
            own = found[place]
            if not isinstance(answer, Failure):
                own.captions.extend(answer)
                own.sources.extend([name] * len(answer))
            elif answer.of_image and not several:
                found[place] = own._replace(lost=answer.reason)
            else:
                own.missing[name] = answer.reason
    return found


def records_of(
    batch: Mapping[str, Any],
    places: list[int],
    described: list[Described],
    plural: bool,
    set_aside: Callable[[Record], None],
) -> tuple[list[Record], list[int]]:
    """The records of a batch, and the rows, among the places, that have one.

    Args:
        batch: of the loader.
        places: in the batch, of the samples that were described.
        described: of each of them.
        plural: make records of version 2.
        set_aside: takes the samples, or captions, that are missing.
    """
    records, rows = [], []
    for row, (place, own) in enumerate(zip(places, described, strict=True)):
        key, index = batch["key"][place], batch["index"][place]
        if own.lost is not None:
            set_aside({"key": key, "index": index, "reason": own.lost})
            continue
        for captioner, reason in own.missing.items():
            set_aside({"key": key, "index": index, "reason": reason, "captioner": captioner})
        record = new_record(
            index, key, batch["text_input"][place], own.captions, batch["record"][place]
        )
        if plural:
            record |= {"version": 2, "sources": own.sources, "text_scores": {}, "image_scores": {}}
        records.append(record)
        rows.append(row)
    return records, rows
