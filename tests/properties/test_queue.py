"""The ring of features: how batches are cut makes no difference."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_lite.losses.queue import FeatureQueue


@given(size=st.integers(1, 9), counts=st.lists(st.integers(0, 9), max_size=6))
@settings(max_examples=60)
def test_batches_that_fit_are_written_as_their_rows_one_by_one(
    size: int, counts: list[int]
) -> None:
    torch.manual_seed(0)
    whole = FeatureQueue(2, size, ids=True)
    torch.manual_seed(0)
    single = FeatureQueue(2, size, ids=True)
    written = 0
    for count in (min(count, size) for count in counts):
        ids = torch.arange(written, written + count)
        features = ids.float()[:, None] + torch.tensor([0.25, 0.5])
        whole.push(features, -features, ids)
        for row in range(count):
            single.push(features[row : row + 1], -features[row : row + 1], ids[row : row + 1])
        written += count
        assert int(whole.queue_ptr) == written % size
    for name, buffer in whole.state_dict().items():
        assert torch.equal(buffer, single.state_dict()[name]), name


@given(size=st.integers(1, 6), counts=st.lists(st.integers(1, 20), min_size=1, max_size=5))
@settings(max_examples=60)
def test_a_queue_that_is_saved_and_read_goes_on_as_the_first(size: int, counts: list[int]) -> None:
    queue, again = FeatureQueue(2, size, ids=True), FeatureQueue(2, size, ids=True)
    for number, count in enumerate(counts):
        again.load_state_dict(queue.state_dict())
        features, ids = torch.full((count, 2), float(number)), torch.full((count,), number)
        queue.push(features, features, ids)
        again.push(features, features, ids)
        assert all(torch.equal(queue.state_dict()[k], v) for k, v in again.state_dict().items())
