"""Cards of released weight files: contents, address, and the models that they load into.

They stand in the ``checkpoints.yaml`` beside a package's zoo.yaml::

    licence: BSD-3-Clause       # of all files that state no other
    layouts:                    # which tensors files of one kind hold, and so what they load into
      caption: {holds: ..., fills: [my_caption], starts: [my_vqa]}
    files:
      my_caption.pth: {url: https://..., layout: caption, vision: base, image_size: 384, ...}
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_lite import registry
from lavis_lite.errors import ConfigError, UnknownName, suggest
from lavis_lite.registry import cards

FILE = "checkpoints.yaml"
_LAYOUT = ("holds", "fills", "starts")


@dataclass(frozen=True)
class WeightCard:
    """One released file.

    Attributes:
        package: package of the card.
        file: its name.
        url: address of the file, or of a hub repository (``hf://owner/repo``).
        layout: name in ``layouts`` of the set of tensors that it holds.
        vision: the preset of its size.
        image_size: side of the images that it was trained on.
        trained_for: task, data, initial weights.
        results: published figures, data -> metric -> value.
        source: publication of the results.
        licence: licence of the weights.
        holds: the parts that it holds, in words.
        fills: models that it makes ready for use.
        starts: models that it initialises, which then need training.
        sha256: hex digest, if known.
    """

    package: str
    file: str
    url: str
    layout: str
    vision: str
    image_size: int
    trained_for: str
    results: Mapping[str, Mapping[str, float]]
    source: str
    licence: str
    holds: str
    fills: list[str]
    starts: list[str]
    sha256: str | None = None

    def types(self, *models: str) -> list[str]:
        """The ``model.type`` names of this file's size among its models."""
        return [
            f"{model}.{type}"
            for model in models
            for type, entry in cards.card(model)["types"].items()
            if (entry or {}).get("preset") == self.vision
        ]

    @property
    def size(self) -> str:
        """The preset of its size, in words."""
        return f"ViT-{self.vision}" if self.vision in ("base", "large") else self.vision

    @property
    def released_as(self) -> list[str]:
        """The ``model.type`` of every type whose released weights are this file."""
        return [
            f"{model}.{type}"
            for model in cards.list_models()
            for type, entry in cards.card(model)["types"].items()
            if (entry or {}).get("checkpoint") == self.url
        ]


def weight_cards() -> dict[str, WeightCard]:
    """Return the cards of all packages by file name.

    Raises:
        ConfigError: a ``checkpoints.yaml`` with unknown, missing or doubled entries.
    """
    found: dict[str, WeightCard] = {}
    for package in registry.index.zoos:
        for card in _read(package):
            if card.file in found:
                raise ConfigError(f"{package}: {FILE}: files.{card.file} has a card already")
            found[card.file] = card
    return found


def weight_card(name: str) -> WeightCard:
    """Return the card of a file, by its name or URL.

    Raises:
        UnknownName: there is none; the message lists the nearest.
    """
    cards = weight_cards()
    for card in cards.values():
        if name in (card.file, card.url):
            return card
    raise UnknownName(
        f"no card of released weights {name!r}.{suggest(name, cards)} Known: {', '.join(cards)}"
    )


def known_digest(source: str | Path) -> str | None:
    """Return the sha256 of a released file by its URL; None if it has no card or digest."""
    return next((c.sha256 for c in weight_cards().values() if c.url == str(source)), None)


@functools.cache
def _read(package: str) -> tuple[WeightCard, ...]:
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or []
    path = next((p for folder in folders if (p := Path(folder) / FILE).is_file()), None)
    if path is None:
        return ()
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    _check(content, ("licence", "layouts", "files"), (), f"{path}")
    for name, layout in content["layouts"].items():
        _check(layout, _LAYOUT, (), f"{path}: layouts.{name}")
    return tuple(
        WeightCard(package=package, file=name, **_facts(name, entry, content, path))
        for name, entry in content["files"].items()
    )


def _facts(name: str, entry: Any, content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Check a file's own facts, and return them with those of its layout."""
    given = {"package", "file", "licence", *_LAYOUT}
    fields = [f for f in dataclasses.fields(WeightCard) if f.name not in given]
    needed = tuple(f.name for f in fields if f.default is dataclasses.MISSING)
    _check(entry, needed, ("sha256", "licence"), f"{path}: files.{name}")
    layouts = content["layouts"]
    if entry["layout"] not in layouts:
        raise ConfigError(
            f"{path}: files.{name}.layout: no layout {entry['layout']!r}."
            f"{suggest(entry['layout'], layouts)}"
        )
    return {"licence": content["licence"], **layouts[entry["layout"]], **entry}


def _check(entry: object, needed: tuple[str, ...], optional: tuple[str, ...], where: str) -> None:
    """Check that a mapping has the keys it needs and no others."""
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: a mapping is expected")
    known = (*needed, *optional)
    for key in entry:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}.{suggest(str(key), known)}")
    if missing := [key for key in needed if key not in entry]:
        raise ConfigError(f"{where}: no {', '.join(missing)}")
