"""The grouping of a tar's members into samples, also where names have several dots."""

from __future__ import annotations

from collections.abc import Iterator

from lavis_lite.data.files.images import SUFFIXES
from lavis_lite.data.files.tar_index import Members

_TEXTS = ("txt", "json", "caption")


def samples_of(key: str, members: Members) -> Iterator[tuple[str, Members]]:
    """Yield the samples among members whose names are equal up to their first dot.

    In webdataset a key ends at the first dot: `x.jpg`, `x.seg.png` and `x.txt` are one sample.
    `22.05.jpg` and `22.06.jpg` are two all the same. What members share up to the last dot is a key
    where it has an image with a text of its own, or where the first dot leaves no plain member.
    """
    groups: dict[str, Members] = {}
    for extension, place in members.items():
        middle, _, last = extension.rpartition(".")
        groups.setdefault(middle, {})[last] = place
    plain = groups.pop("", {})
    with_image = {
        middle: group
        for middle, group in groups.items()
        if _has_image(group) and (not plain or any(text in group for text in _TEXTS))
    }
    rest = {
        extension: place
        for extension, place in members.items()
        if extension.rpartition(".")[0] not in with_image
    }
    if rest:
        yield key, rest
    for middle, group in with_image.items():
        yield f"{key}.{middle}", group


def _has_image(group: Members) -> bool:
    return any(f".{extension}" in SUFFIXES for extension in group)
