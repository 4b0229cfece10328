"""Every config that ships: it loads, binds, says how to start it, writes to its own folder."""

from __future__ import annotations

import collections
import re
from pathlib import Path
from typing import Any

import pytest

from lavis_lite import config
from lavis_lite.config.files import config_root, read
from lavis_lite.config.schema import PipelineConfig

ROOT = config_root()
EVERY = sorted(ROOT.rglob("*.yaml"))
BASES = [path for path in EVERY if path.parent.name == "base"]
RUNS = [path for path in EVERY if path not in BASES]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_walk_finds_the_configs() -> None:
    assert {"quickstart.yaml", "blip/pretrain_scenes.yaml", "blip/capfilt_scenes.yaml"} <= {
        name(path) for path in RUNS
    }
    assert BASES


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_a_config_loads_and_binds(path: Path) -> None:
    loaded = config.load_and_bind(path)
    assert loaded.run.output_dir


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_the_stages_of_a_pipeline_load_and_bind(path: Path) -> None:
    loaded: Any = config.load(path)
    if isinstance(loaded, PipelineConfig):
        assert loaded.stages
        for stage in loaded.stages.values():
            assert config.load_and_bind(stage.cfg, values=stage.set)


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_the_head_of_a_config_says_how_to_start_it(path: Path) -> None:
    head = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))
    assert head is not None
    assert f"run.py --cfg configs/{name(path)}" in head[0]


def test_every_run_writes_to_a_folder_of_its_own() -> None:
    folders = collections.Counter(config.load(path).run.output_dir for path in RUNS)
    assert [folder for folder, count in folders.items() if count > 1] == []
    assert all(folder.startswith("output/") for folder in folders)


def test_every_base_is_included_by_something() -> None:
    used = {
        file for path in RUNS for file in read(path).origin.values() if Path(file) in set(BASES)
    }
    assert {Path(file) for file in used} == set(BASES)


@pytest.mark.parametrize("path", BASES, ids=name)
def test_a_base_is_a_part_of_a_config_and_says_what_for(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert read(path).tree
