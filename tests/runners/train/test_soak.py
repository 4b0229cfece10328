"""Training that is killed again and again ends as if nothing had been; see soak_training."""

from __future__ import annotations

import pytest
from soak_training import BAD_EVERY, PICTURES, soak

STEPS, KILLS = 600, 16


@pytest.mark.slow
@pytest.mark.fault(1, 8, 19)
def test_killed_again_and_again_with_broken_pictures_it_learns_the_same_bit_for_bit(tmp_path):
    found = soak(tmp_path, STEPS, KILLS)["metrics"]
    print(found)
    assert found["kills_survived"] == KILLS
    assert found["checkpoints_verified"] >= KILLS
    assert found["samples_quarantined"] == PICTURES // BAD_EVERY
