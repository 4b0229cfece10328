"""The shipped config, killed at random moments, leaves what an undisturbed run does."""

from __future__ import annotations

from pathlib import Path

import pytest
import soak_capfilt


@pytest.mark.slow
@pytest.mark.fault(48)
def test_killed_ten_times_the_scenes_run_leaves_the_same_bytes_and_each_key_once(
    tmp_path: Path,
) -> None:
    figures = soak_capfilt.soak(tmp_path, rows=320, kills=10)["metrics"]
    print(figures)
    assert figures["kills"] == 11
    assert figures["kills_beside_another_process"] >= 1
    assert figures["shards"] == 8
    assert figures["files_with_the_same_bytes"] == 8 * 5
    assert figures["samples_each_once"] == 320
