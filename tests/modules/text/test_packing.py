"""Texts side by side in rows: nothing is lost, nothing sees another text, next to no padding."""

from __future__ import annotations

import random

import pytest
import torch

from lavis_lite.modules.text.packing import WIDTHS, pack_texts
from lavis_lite.modules.text.text_batch import TextBatch, padded


def texts_of(lengths: list[int], seed: int = 0) -> TextBatch:
    draw = random.Random(seed)
    return padded([[draw.randint(5, 99) for _ in range(n)] for n in lengths], pad_id=0)


@pytest.mark.parametrize("num_images", [1, 2, 3])
def test_every_text_stands_whole_in_a_row_of_its_image(num_images: int) -> None:
    draw = random.Random(num_images)
    texts = texts_of([draw.randint(2, 40) for _ in range(num_images * 12)])
    rows = pack_texts(texts, num_images)
    found = 0
    for number, (ids, mask) in enumerate(zip(*texts, strict=True)):
        image, text = divmod(number, 12)
        row, slot = divmod(int(rows.order[image, text]), rows.starts.shape[2])
        start, length = int(rows.starts[image, row, slot]), int(mask.sum())
        own = slice(start, start + length)
        assert rows.ids[image, row, own].equal(ids[:length])
        assert rows.positions[image, row, own].equal(torch.arange(length))
        visible = torch.zeros(rows.ids.shape[2], dtype=torch.bool)
        visible[own] = True
        assert (rows.visible[image, row, own] == visible).all()
        found += length
    assert found == texts.mask.sum() == (rows.ids > 0).sum()
    assert rows.visible.any(-1).all()  # attention to nothing at all is not a number


def test_rows_of_many_texts_are_all_but_full() -> None:
    draw = random.Random(0)
    texts = texts_of([draw.randint(8, 20) for _ in range(32)])
    rows = pack_texts(texts, 1)
    assert rows.ids.shape[2] <= 1.05 * max(WIDTHS)
    assert rows.ids.numel() < 1.05 * texts.mask.sum() < 0.8 * texts.ids.numel()


def test_texts_of_one_length_keep_rows_of_their_own() -> None:
    rows = pack_texts(texts_of([9] * 10), 2)
    assert rows.ids.shape == (2, 5, 9)
    assert rows.visible.all()


def test_parts_hold_few_tokens_and_are_all_of_the_rows() -> None:
    texts = texts_of([draw % 30 + 2 for draw in range(60)])
    rows = pack_texts(texts, 1)
    parts = list(rows.split(2 * rows.ids.shape[2]))
    assert len(parts) > 2
    assert all(part.ids.shape[1] <= 2 for part in parts)
    for number in range(4):
        assert torch.cat([part[number] for part in parts], dim=1).equal(rows[number])
