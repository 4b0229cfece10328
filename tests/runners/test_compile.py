"""``run.compile``: a compiler is asked for before the run begins."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from lavis_lite.errors import ConfigError
from lavis_lite.runners.parallel import Losses, check_compiler


def test_a_missing_compiler_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler.*use run.compile: false"):
        Losses(nn.Linear(2, 2), compile=True)
    Losses(nn.Linear(2, 2), compile=False)
    check_compiler(torch.device("cuda"))


def test_a_compiler_named_in_the_environment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "my-compiler")
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "my-compiler" else None)
    check_compiler(torch.device("cpu"))
