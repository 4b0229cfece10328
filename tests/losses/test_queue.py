"""The feature queue against a list that forgets."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lavis_lite.losses.queue import FeatureQueue


def rows(start: int, count: int) -> Tensor:
    """(count, 2) rows that count upwards, so that each is known by its number."""
    return torch.arange(start, start + count).float()[:, None] * torch.tensor([1.0, 10.0])


@given(st.integers(0, 7), st.lists(st.integers(0, 20), max_size=6))
def test_it_holds_the_newest_rows_for_any_batch_sizes(size: int, batches: list[int]) -> None:
    queue = FeatureQueue(2, size, ids=True)
    written = 0
    for count in batches:
        ids = torch.arange(written, written + count)
        queue.push(rows(written, count), -rows(written, count), ids)
        written += count
    expected = set(range(max(0, written - size), written))
    held = queue.idx_queue[0].tolist()
    assert {i for i in held if i != -100} == expected
    for column, number in enumerate(held):
        if number != -100:
            assert torch.equal(queue.image_queue[:, column], rows(number, 1)[0])
            assert torch.equal(queue.text_queue[:, column], -rows(number, 1)[0])
    # Large batches write their newest rows only, and the pointer moves by what was written.
    assert 0 <= queue.queue_ptr.item() < max(size, 1)


def test_it_wraps_around_and_overwrites_the_oldest() -> None:
    queue = FeatureQueue(2, 5, ids=True)
    queue.push(rows(0, 3), rows(0, 3), torch.arange(3))
    assert (queue.idx_queue[0].tolist(), queue.queue_ptr.item()) == ([0, 1, 2, -100, -100], 3)
    queue.push(rows(3, 4), rows(3, 4), torch.arange(3, 7))
    assert (queue.idx_queue[0].tolist(), queue.queue_ptr.item()) == ([5, 6, 2, 3, 4], 2)


def test_a_batch_larger_than_the_queue_leaves_its_newest_rows() -> None:
    queue = FeatureQueue(2, 3, ids=True)
    queue.push(rows(0, 8), rows(0, 8), torch.arange(8))
    assert queue.idx_queue[0].tolist() == [5, 6, 7]
    assert torch.equal(queue.image_queue, rows(5, 3).T)


def test_it_starts_with_random_directions_of_unit_length() -> None:
    queue = FeatureQueue(16, 10, ids=False)
    assert torch.allclose(queue.image_queue.norm(dim=0), torch.ones(10))
    assert not torch.equal(queue.image_queue, queue.text_queue)


def test_its_buffers_have_the_published_names_and_travel_with_the_weights() -> None:
    assert list(FeatureQueue(4, 3, ids=False).state_dict()) == [
        "image_queue",
        "text_queue",
        "queue_ptr",
    ]
    queue = FeatureQueue(4, 3, ids=True)
    assert {k: tuple(v.shape) for k, v in queue.state_dict().items()} == {
        "image_queue": (4, 3),
        "text_queue": (4, 3),
        "queue_ptr": (1,),
        "idx_queue": (1, 3),
    }
