"""Runs of CapFilt with toys."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lavis_lite import config as configs
from lavis_lite import runners

TOY = str(Path(__file__).with_name("toy_capfilt.py"))


def toy_tree(folder: Path) -> dict[str, Any]:
    """A run over 24 rows in 3 shards."""
    return {
        "plugins": [TOY],
        "runner": {"name": "capfilt", "shard_size": 8},
        "captioner": {"name": "toy_captioner"},
        "filter": {"name": "toy_filter"},
        "data": {"source": {"name": "toy_pairs"}, "batch_size": 3},
        "run": {"output_dir": str(folder), "device": "cpu", "report": None},
    }


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """``load(folder name, "key=value", ...)`` -> the checked config of a toy run."""

    def build(name: str = "out", *overrides: str) -> Any:
        path = tmp_path / f"{name}.yaml"
        path.write_text(OmegaConf.to_yaml(OmegaConf.create(toy_tree(tmp_path / name))))
        return configs.load_and_bind(path, overrides)

    return build


@pytest.fixture
def capfilt(load: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """``capfilt(folder name, "key=value", ...)`` runs it and returns its folder."""

    def run(name: str = "out", *overrides: str) -> Path:
        runners.run(load(name, *overrides))
        return tmp_path / name

    return run


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the toys note what they compute and find what to do."""
    folder = tmp_path / "watched"
    folder.mkdir()
    monkeypatch.setitem(os.environ, "TOY_CAPFILT", str(folder))
    return folder


@pytest.fixture
def digests() -> Callable[[Path], dict[str, str]]:
    """File name -> hash of its bytes, of everything in the folder of the shards."""

    def read(folder: Path) -> dict[str, str]:
        files = sorted((folder / "shards").iterdir())
        return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    return read


@pytest.fixture
def records() -> Callable[[Path], list[dict[str, Any]]]:
    """The records of a run, in order."""

    def read(folder: Path) -> list[dict[str, Any]]:
        files = sorted((folder / "shards").glob("shard-??????.jsonl"))
        return [json.loads(line) for f in files for line in f.read_text().splitlines()]

    return read
