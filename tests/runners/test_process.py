"""Which device a run of one process gets, on machines that are only pretended."""

from __future__ import annotations

import pytest
import torch
from toy_runs import toy_config

from lavis_lite.errors import ConfigError
from lavis_lite.runners.process import join


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)]
)
def test_a_gpu_that_is_there_is_used(two_gpus, name, index):
    assert join(toy_config("nowhere", run__device=name).run) == torch.device("cuda", index)


def test_a_gpu_that_is_not_there_is_a_wrong_key(two_gpus):
    with pytest.raises(ConfigError, match=r"^run\.device: 'cuda:2', but the last one is cuda:1$"):
        join(toy_config("nowhere", run__device="cuda:2").run)
