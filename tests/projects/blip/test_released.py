"""Files in the layout of each released checkpoint, small, and every model that they load into."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.errors import CheckpointError
from lavis_lite.models.published_weights import published
from lavis_lite.registry import cards
from lavis_lite.registry.weight_cards import weight_cards

LETTERS = {"pretrain": "P", "retrieval": "R", "caption": "C", "vqa": "V", "nlvr": "L"}
CARDS = {
    card.layout: card
    for card in weight_cards().values()
    if any(name.startswith("blip_") for name in (*card.fills, *card.starts))
}
MODELS = [name for name in cards.list_models("blip_*") if "tiny" in cards.types(name)]
# Sizes in the layouts -> those of the type `tiny`.
TINY = {"768": 64, "3072": 128, "1536": 128, "30524": 1064, "256": 32, "57600": 8, "N": 17}
VISION_WIDTH = 64
DEPTH, MERGED = range(3), range(1, 3)


def tensors(letter: str) -> dict[str, Tensor]:
    """What a checkpoint of this kind holds, every number drawn, tied copies equal."""
    generator = torch.Generator().manual_seed(ord(letter))
    made: dict[str, Tensor] = {}
    for line in Path(__file__).with_name("published_layouts.tsv").read_text().splitlines():
        template, _, rest = line.partition("\t")
        dims, _, where = rest.partition("\t")
        if line.startswith("#") or letter not in where:
            continue
        shape = [
            int(d[:-1] or 1) * VISION_WIDTH if d.endswith("D") else TINY.get(d) or int(d)
            for d in dims.split()
        ]
        numbers = MERGED if "+" in template else DEPTH if "*" in template else range(1)
        for number in numbers:
            made[re.sub(r"[*+]", str(number), template)] = torch.rand(shape, generator=generator)
    return tied(made, letter)


def tied(made: dict[str, Tensor], letter: str) -> dict[str, Tensor]:
    """Copies of one tensor equal each other; counters count; the queue's ids are ids."""
    for key in made:
        if letter == "P" and key.startswith("text_decoder.bert.") and ".attention." not in key:
            made[key] = made[key.replace("text_decoder.bert.", "text_encoder.")]
        elif key.endswith("position_ids"):
            made[key] = torch.arange(512)[None]
        elif key in ("idx_queue", "queue_ptr", "ptr_queue"):
            made[key] = torch.full(made[key].shape, 3)
    if (head := "text_decoder.cls.predictions.") + "bias" in made:
        made[f"{head}decoder.bias"] = made[f"{head}bias"]
        words = "text_decoder.bert.embeddings.word_embeddings.weight"
        made[f"{head}decoder.weight"] = made[words]
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, Any]]:
    """``written(layout)`` -> a file as its authors saved it, and the tensors in it."""
    folder = tmp_path_factory.mktemp("released")
    known: dict[str, tuple[str, Any]] = {}

    def write(layout: str) -> tuple[str, Any]:
        if layout not in known:
            made = tensors(LETTERS[layout])
            path = folder / f"{layout}.pth"
            optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]).state_dict()
            config = {"image_size": 384, "args": argparse.Namespace(vit="base")}
            content = {"model": made, "optimizer": optimizer, "config": config, "epoch": 5}
            torch.save(content, path)
            known[layout] = str(path), made
        return known[layout]

    return write


def test_every_layout_of_the_cards_is_tried() -> None:
    assert set(CARDS) == set(LETTERS)
    assert len(MODELS) == 8


@pytest.mark.parametrize(
    ("layout", "name"), [(layout, name) for layout, card in CARDS.items() for name in card.fills]
)
def test_a_released_file_fills_the_models_of_its_card(
    layout: str, name: str, written: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path, held = written(layout)
    with caplog.at_level(logging.WARNING):
        model = create_model(name, "tiny", checkpoint=path)
    report = model.load_report
    assert report.complete
    assert report.loaded == report.total == len(model.state_dict())
    held = {published(key): value for key, value in held.items()}
    # Pre-training knows no ids of images: a queue that needs them starts anew.
    fresh = ("queue",) if (layout, name) == ("pretrain", "blip_retrieval") else ()
    for key, value in model.state_dict().items():
        if not any(word in key for word in fresh):
            assert torch.equal(value, held[published(key)]), key
    assert "start anew" not in caplog.text


@pytest.mark.parametrize(
    ("layout", "name"), [(layout, name) for layout, card in CARDS.items() for name in card.starts]
)
def test_a_released_file_starts_the_models_of_its_card(
    layout: str, name: str, written: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path, held = written(layout)
    torch.manual_seed(3)
    start = create_model(name, "tiny").state_dict()
    torch.manual_seed(3)
    with caplog.at_level(logging.WARNING):
        model = create_model(name, "tiny", checkpoint=path)
    assert model.load_report.complete
    kept, announced = [], caplog.text
    for key, value in model.state_dict().items():
        source = re.sub(r"(self|dense)[01]\.", r"\1.", published(key))
        source = source if source in held else re.sub(r"_m\.", ".", source)
        if source in held:
            assert torch.equal(value, held[source]), key
        else:
            assert torch.equal(value, start[key]), key
            kept.append(key)
    heads = {key.partition(".")[0].removesuffix("_m") for key in kept if "merge_layer" not in key}
    needs_head = name in ("blip_nlvr", "blip_classification")
    assert heads == ({"cls_head"} if needs_head else set())
    assert ("start anew" in announced) == needs_head
    assert all(key in announced for key in kept if "_m." not in key)


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (layout, name)
        for layout, card in CARDS.items()
        for name in MODELS
        if name not in card.fills + card.starts
    ],
)
def test_a_released_file_is_refused_by_every_other_model(
    layout: str, name: str, written: Any
) -> None:
    path, _ = written(layout)
    misfit = rf"{layout}\.pth: (do not fit Blip\w+: .* missing|.* are one tensor in Blip\w+)"
    with pytest.raises(CheckpointError, match=misfit):
        create_model(name, "tiny", checkpoint=path)


@pytest.mark.parametrize(("spelled", "pointer"), [("BLIP", "ptr_queue"), ("LAVIS", "queue_ptr")])
def test_a_queue_goes_on_by_either_name_of_its_pointer(
    spelled: str, pointer: str, written: Any, tmp_path: Path
) -> None:
    _, held = written("retrieval")
    assert "ptr_queue" in held
    renamed = {pointer if key == "ptr_queue" else key: value for key, value in held.items()}
    torch.save({"model": renamed}, tmp_path / f"{spelled}.pth")
    path = str(tmp_path / f"{spelled}.pth")
    model = create_model("blip_retrieval", "tiny", checkpoint=path)
    queue = model.losses["itc"].queue
    assert queue.queue_ptr.item() == 3
    assert (queue.idx_queue == 3).all()
    assert f"{pointer} -> losses.itc.queue.queue_ptr" in model.load_report.converted


def test_what_serves_training_alone_is_dropped_by_name(written: Any) -> None:
    path, held = written("retrieval")
    model = create_model("blip_image_text_matching", "tiny", checkpoint=path)
    dropped = {n.removesuffix(" -> dropped") for n in model.load_report.converted if "drop" in n}
    assert dropped == {
        key
        for key in held
        if key.partition(".")[0].endswith("_m")
        or key in ("temp", "image_queue", "text_queue", "idx_queue", "ptr_queue")
        or key.endswith("position_ids")
    }


@pytest.mark.parametrize(
    "extra", ["visual_encoder_x.norm.weight", "momentum", "text_queue_2d", "module"]
)
def test_what_no_blip_model_has_is_refused_by_name(
    extra: str, written: Any, tmp_path: Path
) -> None:
    _, held = written("caption")
    torch.save({"model": {**held, extra: torch.ones(1)}}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=rf"unexpected: {extra}"):
        create_model("blip_caption", "tiny", checkpoint=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("size", [32, 96, 160])
def test_a_released_file_loads_at_any_image_size(size: int, written: Any) -> None:
    path, _ = written("retrieval")
    model = create_model("blip_retrieval", "tiny", checkpoint=path, image_size=size)
    names = ["visual_encoder.pos_embed", "visual_encoder_m.pos_embed"]
    assert sorted(model.load_report.interpolated) == names
    assert model.encode_image(torch.zeros(1, 3, size, size)).shape[1] == 1 + (size // 16) ** 2


def test_a_cut_classifier_is_not_taken_for_a_file_of_another_task(
    written: Any, tmp_path: Path
) -> None:
    _, held = written("nlvr")
    cut = {key: value for key, value in held.items() if not key.startswith("cls_head.")}
    torch.save({"model": cut}, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match=r"missing: cls_head\.0\.weight"):
        create_model("blip_nlvr", "tiny", checkpoint=str(tmp_path / "cut.pth"))


def test_features_without_projections_are_refused(tmp_path: Path) -> None:
    held = tensors("F")
    towers = {k: v for k, v in held.items() if k.startswith(("visual_encoder.", "text_encoder."))}
    torch.save({"model": towers}, tmp_path / "features.pth")
    with pytest.raises(CheckpointError) as refused:
        create_model("blip_feature_extractor", "tiny", checkpoint=str(tmp_path / "features.pth"))
    for key in ("temp", "vision_proj.weight", "vision_proj.bias", "text_proj.weight"):
        assert key in str(refused.value)
