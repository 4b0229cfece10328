"""The texts of a run by their sources with probabilities, for a dataset of one row per image."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lavis_lite.data.several_texts import probabilities, text_fields
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.projects.blip.capfilt.texts import WEB, Record, texts

_KEPT = "kept_"
_WHERE = "bootstrapped.texts"


class MixedTexts:
    """The sources of texts that a config names, as records are read.

    Args:
        shares: `web`, `synthetic` or a captioner, also with `kept_` before it, with probabilities.

    Raises:
        ConfigError: see `probabilities`.
    """

    def __init__(self, shares: Mapping[str, Any]) -> None:
        self._named = list(shares)
        self._shares = probabilities(shares, _WHERE)
        self._sources = {WEB: None, "synthetic": None}

    def fields(self, record: Record, chosen: Collection[int] | None) -> dict[str, Any]:
        """Return the fields of a row of `text_fields`; nothing where no source has a text.

        Args:
            record: of any version.
            chosen: places of the texts of a selection, which has no others; None without one.
        """
        found: dict[str, list[str]] = {}
        for place, text in enumerate(texts(record)):
            self._sources[text.source] = None
            if chosen is not None and place not in chosen:
                continue
            groups = [text.source] if place == 0 else [text.source, "synthetic"]
            for group in dict.fromkeys(groups):
                found.setdefault(group, []).append(text.text)
                if text.kept or chosen is not None:
                    found.setdefault(_KEPT + group, []).append(text.text)
        return text_fields(found, self._shares)

    def check(self) -> None:
        """Check the names, once all records have been read and every captioner is known.

        Raises:
            ConfigError: a name that is no source of texts.
        """
        known = [*self._sources, *(_KEPT + name for name in self._sources)]
        for name in self._named:
            if name not in known:
                raise ConfigError(
                    f"{_WHERE}: no source {name!r}.{suggest(name, known)} Known: {known}"
                )
