"""What every test starts from: fixed seeds, one thread, and the golden numbers."""

from __future__ import annotations

import importlib.util
import logging
import os
import random
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor

torch.set_num_threads(1)
# The same examples in every run, whatever failed before; `HYPOTHESIS_PROFILE=search` draws others.
settings.register_profile("steady", derandomize=True, database=None, deadline=None)
settings.register_profile("search", derandomize=False, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seeds every global generator, so that a test's numbers do not depend on its neighbours."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Takes away handlers of the command line: they write to a stream that a test has captured."""
    yield
    for handler in logging.root.handlers[:]:
        if type(handler) is logging.StreamHandler:
            logging.root.removeHandler(handler)


@pytest.fixture
def hub_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub seems to be there, for tests that put something in place of its client."""
    from lavis_lite.io import hub

    monkeypatch.setattr(hub, "_failure", lambda host, port: None)
    monkeypatch.setattr(hub, "_tried", {})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """What a test printed or logged, as processes side by side can hand it over: as UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def load_golden() -> ModuleType:
    # pytest's importlib mode puts no test folder on sys.path.
    spec = importlib.util.spec_from_file_location(
        "golden_numbers", Path(__file__).parent / "helpers" / "golden.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOLDEN = load_golden()


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """The recorded numbers, ids and layouts: ``caption``, ``itm``, ``pretrain``."""
    return GOLDEN.golden_numbers()


@pytest.fixture(scope="session")
def golden_weights() -> Callable[[dict[str, list[int]], dict[str, str]], dict[str, Tensor]]:
    """``golden_weights(layout, alias)`` -> state dict of the float tensors."""
    return GOLDEN.golden_state


@pytest.fixture(scope="session")
def golden_images() -> Callable[[int, int], Tensor]:
    """``golden_images(count, seed)`` -> (count, 3, 64, 64)."""
    return GOLDEN.images
