"""Configs that cannot run, given on the command line as a user gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavis_lite import cli, registry

CONFIG = """
runner: {{name: train}}
model: {{name: blip_caption, type: tiny}}
data: {{train: [{{name: scenes, size: 8}}], batch_size: 2, num_workers: 0}}
run: {{output_dir: {out}, max_steps: 1, device: cpu}}
"""


@pytest.fixture(autouse=True)
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(kind: str, *given: object, **how: object) -> None:
        raise AssertionError(f"a {kind} was built")

    monkeypatch.setattr(registry, "build", build)


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, *overrides: str) -> str:
    """The message of a run that must end with code 2 and leave nothing behind."""
    (tmp_path / "run.yaml").write_text(text)
    assert cli.main(["run", "--cfg", str(tmp_path / "run.yaml"), *overrides]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return shown


@pytest.mark.fault(42)
@pytest.mark.parametrize(
    ("sound", "broken", "key", "says"),
    [
        ("max_steps: 1", "max_stpes: 1", "run.max_stpes", "Did you mean 'max_steps'?"),
        ("batch_size: 2", "batch_size: two", "data.batch_size", "int is expected, not str 'two'"),
        ("blip_caption", "blip_captoin", "model.name", "Did you mean 'blip_caption'?"),
        ("type: tiny", "type: tiyn", "model.type", "Did you mean 'tiny'?"),
        ("name: scenes", "name: scnes", "data.train[0].name", "Did you mean 'scenes'?"),
        ("size: 8", "szie: 8", "data.train[0]: 'scenes' takes no 'szie'", "Did you mean 'size'?"),
        ("size: 8", "size: many", "data.train[0].size", "int"),
        ("max_steps: 1", "max_steps: 1, max_steps: 2", "", "cannot be read as YAML (line "),
    ],
)
def test_a_slip_is_named_with_file_key_and_the_nearest_name(
    sound: str,
    broken: str,
    key: str,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = CONFIG.format(out=tmp_path / "out")
    assert sound in text
    shown = refused(tmp_path, capsys, text.replace(sound, broken))
    assert f"{tmp_path / 'run.yaml'}: {key}" in shown
    assert says in shown


@pytest.mark.fault(40)
@pytest.mark.parametrize("where", ["file", "override"])
@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir ['MARK']",
        "!!python/object/new:os.mkdir ['MARK']",
        "!!python/name:os.mkdir",
    ],
)
def test_a_tag_that_asks_for_python_is_refused_and_nothing_is_called(
    tag: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tag, text = tag.replace("MARK", str(tmp_path / "mark")), CONFIG.format(out=tmp_path / "out")
    if where == "file":
        shown = refused(tmp_path, capsys, text + f"plugins: {tag}\n")
        assert f"ConfigError: {tmp_path / 'run.yaml'}: " in shown
    else:
        shown = refused(tmp_path, capsys, text, f"plugins={tag}")
        assert "ConfigError: override" in shown
    assert "cannot be read as YAML (line " in shown


@pytest.mark.fault(41)
def test_anchors_that_hold_themselves_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CONFIG.format(out=tmp_path / "out") + "plugins: &a [*a]\n"
    assert str(tmp_path / "run.yaml") in refused(tmp_path, capsys, text)
