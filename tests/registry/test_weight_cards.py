"""Cards of released weights: complete, of every released file, and used where files are fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lavis_lite import create_model, registry
from lavis_lite.checkpoint.weights import save_weights
from lavis_lite.errors import ConfigError, DownloadError, UnknownName
from lavis_lite.registry import cards
from lavis_lite.registry import weight_cards as card_files
from lavis_lite.registry.weight_cards import WeightCard, known_digest, weight_card, weight_cards

CARDS = weight_cards()
LAYOUT = "{holds: both, fills: [blip_caption], starts: []}"
CARD = f"""
licence: BSD-3-Clause
layouts:
  caption: {LAYOUT}
files:
  a.pth: {{url: "https://a.example/a.pth", layout: caption, vision: base, image_size: 384,
          trained_for: captions, results: {{}}, source: a paper}}
"""


# ---- the cards that there are


@pytest.mark.parametrize("card", CARDS.values(), ids=list(CARDS))
def test_a_card_is_complete(card: WeightCard) -> None:
    assert card.url.startswith(("https://", "hf://"))
    assert card.url.endswith(f"/{card.file}")
    assert card.image_size % 16 == 0 or card.image_size % 14 == 0
    assert card.licence in ("BSD-3-Clause", "MIT", "Apache-2.0")
    assert card.trained_for
    assert card.source
    assert card.results
    for figures in card.results.values():
        assert figures
        assert all(0 < value < 150 for value in figures.values())
    assert card.sha256 is None or re.fullmatch("[0-9a-f]{64}", card.sha256)
    assert card.fills or card.starts
    assert set(card.fills + card.starts) <= set(cards.list_models())


def test_no_two_cards_are_of_one_address() -> None:
    assert len({card.url for card in CARDS.values()}) == len(CARDS)


def released() -> dict[str, tuple[str, str]]:
    """``model.type`` -> (model, its weights' address) of everything that is fetched."""
    return {
        f"{name}.{type}": (name, entry["checkpoint"])
        for name in cards.list_models()
        for type, entry in cards.card(name)["types"].items()
        if "://" in (entry or {}).get("checkpoint", "")
    }


@pytest.mark.parametrize("spelled", released())
def test_every_released_type_has_a_card_that_fills_it(spelled: str) -> None:
    name, url = released()[spelled]
    card = weight_card(url)
    assert name in card.fills
    assert spelled in card.released_as
    assert spelled in card.types(*card.fills)


def test_an_image_size_on_a_card_of_blip_is_that_of_the_type() -> None:
    for spelled, (name, url) in released().items():
        if not name.startswith("blip_"):  # others are resampled, as LAVIS does it
            continue
        args = cards.preset(name, spelled.partition(".")[2])
        default = registry.entry("model", name).arguments["image_size"].default
        assert args.get("image_size", default) == weight_card(url).image_size, spelled


def test_a_card_is_found_by_file_and_by_address_and_the_nearest_is_named() -> None:
    card = weight_card("model_large.pth")
    assert weight_card(card.url) is card
    with pytest.raises(UnknownName, match=r"'model_larg.pth'. Did you mean 'model_large.pth'\?"):
        weight_card("model_larg.pth")


def test_the_documentation_shows_every_card_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx")
    folder = Path(__file__).resolve().parents[2] / "docs" / "_ext"
    monkeypatch.syspath_prepend(str(folder))
    from weight_cards import lines

    text = "\n".join(lines())
    for card in CARDS.values():
        assert text.count(f"`{card.file} <{card.url}>`__") == 1
        assert card.trained_for in text
    for spelled in released():
        assert f"**{spelled}**" in text
    assert "to be trained: ``blip_vqa.vqav2``" in text


# ---- what is wrong with a card


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the cards of an installed package those of a text."""

    def made(text: str) -> None:
        folder = tmp_path / "acme_cards"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        (folder / card_files.FILE).write_text(text)
        card_files._read.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry.index, "zoos", {"acme_cards": {}})
    yield made
    card_files._read.cache_clear()


def test_the_cards_of_a_package_are_read(package: Any) -> None:
    package(CARD)
    assert weight_card("a.pth").fills == ["blip_caption"]
    assert weight_card("a.pth").sha256 is None
    assert weight_card("a.pth").licence == "BSD-3-Clause"
    package(CARD.replace("source: a paper", "source: a paper, licence: MIT"))
    assert weight_card("a.pth").licence == "MIT"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("source: a paper", "sorce: a paper", r"files.a.pth: unknown key 'sorce'. Did you mean"),
        (", source: a paper", "", r"files.a.pth: no source"),
        ("layout: caption", "layout: captoin", r"files.a.pth.layout: no layout 'captoin'. Did you"),
        ("starts: []", "start: []", r"layouts.caption: unknown key 'start'"),
        ("licence:", "license:", r"checkpoints.yaml: unknown key 'license'"),
        (LAYOUT, "[]", r"layouts.caption: a mapping is expected"),
    ],
)
def test_a_wrong_card_names_its_file_and_key(
    package: Any, old: str, new: str, complaint: str
) -> None:
    assert old in CARD
    package(CARD.replace(old, new))
    with pytest.raises(ConfigError, match=complaint):
        weight_cards()


# ---- digests


def test_the_digest_of_a_released_file_is_that_of_its_card() -> None:
    card = weight_card("model_base_caption_capfilt_large.pth")
    assert known_digest(card.url) == card.sha256
    assert known_digest("https://elsewhere.example/model.pth") is None
    assert known_digest("model_base_caption_capfilt_large.pth") is None  # a file of the user's


LOADS = {
    "create_model": lambda file: create_model("blip_caption", "tiny", checkpoint=file),
    "load_checkpoint": lambda file: create_model("blip_caption", "tiny").load_checkpoint(file),
}


@pytest.mark.parametrize("load", LOADS.values(), ids=list(LOADS))
def test_released_weights_with_another_digest_are_refused(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = create_model("blip_caption", "tiny")
    file = str(save_weights(model, tmp_path / "w.safetensors"))
    load(file)
    monkeypatch.setattr(card_files, "known_digest", {file: "0" * 64}.get)
    with pytest.raises(DownloadError, match=f"wanted {'0' * 64}"):
        load(file)
