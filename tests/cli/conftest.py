"""Pictures on disk, and the command line as a function."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lavis_lite import cli, registry


class Output(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Output]:
    """``command("caption", path, ...)``: the exit code, stdout and stderr of ``lavis-lite``."""
    # A handler that a command leaves would write to the stderr of this test in others.
    monkeypatch.setattr(logging, "basicConfig", lambda **options: None)

    def call(*words: Any) -> Output:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Output(code, out, err)

    return call


@pytest.fixture(scope="session")
def captions() -> list[str]:
    """What the pictures show."""
    scenes = registry.build("dataset", {"name": "scenes", "split": "test", "size": 5})
    return [scenes[number]["text_input"] for number in range(5)]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five scenes, one of them below it, and a text file."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    scenes = registry.build("dataset", {"name": "scenes", "split": "test", "size": 5})
    for number in range(5):
        name = f"{'below/' if number == 4 else ''}scene{number}.png"
        scenes[number]["image"].save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder
