"""Reading config files: includes, and what is no plain, finite tree."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lavis_lite.config.files import MAX_BYTES, beside, config_root, find, read, spell
from lavis_lite.errors import ConfigError

Write = Callable[[str, str], Path]
WATCHDOG = 30  # seconds: what these limits prevent would take hours


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_numbers_are_read_as_omegaconf_reads_them(write: Write) -> None:
    tree = read(write("a.yaml", "lr: 1e-4\nsteps: 3\nswitch: on\nempty: ~")).tree
    assert tree == {"lr": 1e-4, "steps": 3, "switch": True, "empty": None}


# ---- _base_


def test_a_base_is_found_relative_to_the_including_file(write: Write) -> None:
    write("base/train.yaml", "a: 1\nb: {c: 2}")
    path = write("blip/run.yaml", "_base_: ../base/train.yaml\nb: {d: 3}")
    assert read(path).tree == {"a": 1, "b": {"c": 2, "d": 3}}


def test_later_bases_win_over_earlier_ones_and_the_file_over_all(write: Write) -> None:
    write("one.yaml", "a: 1\nb: 1\nc: 1")
    write("two.yaml", "b: 2\nc: 2")
    assert read(write("run.yaml", "_base_: [one.yaml, two]\nc: 3")).tree == {"a": 1, "b": 2, "c": 3}


def test_bases_have_bases(write: Write) -> None:
    write("a.yaml", "x: {name: old, k: 1}\ny: 1")
    write("b.yaml", "_base_: a.yaml\nx: {name: new}")
    assert read(write("c.yaml", "_base_: b.yaml\ny: 2")).tree == {"x": {"name": "new"}, "y": 2}


def test_every_key_knows_the_file_that_set_it(write: Write) -> None:
    base = write("base.yaml", "a: 1\nlist: [{b: 2}]")
    path = write("run.yaml", "_base_: base.yaml\na: 3")
    origin = read(path).origin
    assert origin[("a",)] == str(path)
    assert origin[("list", 0, "b")] == str(base)


@pytest.mark.fault(41)
def test_a_circle_of_bases_is_named(write: Write) -> None:
    a, b = write("a.yaml", "_base_: b.yaml"), write("b.yaml", "_base_: a.yaml")
    with pytest.raises(ConfigError) as error:
        read(a)
    assert str(error.value) == f"{a}: _base_ goes in a circle: {a} -> {b} -> {a}"
    with pytest.raises(ConfigError, match="goes in a circle"):
        read(write("self.yaml", "_base_: self.yaml"))


def test_bases_that_are_nested_absurdly_are_an_error(write: Write) -> None:
    for number in range(30):
        write(f"{number}.yaml", f"_base_: {number + 1}.yaml")
    with pytest.raises(ConfigError, match=r"20\.yaml: _base_ files are nested more than 20 deep"):
        read(write("0.yaml", "_base_: 1.yaml"))


def test_a_base_that_many_files_include_is_read_once(write: Write) -> None:
    for number in range(18):  # two to the power of 18 paths lead to the last one
        write(f"{number}.yaml", f"_base_: [{number + 1}.yaml, {number + 1}.yaml]\nk{number}: 1")
    path = write("18.yaml", "end: 1")
    start = time.perf_counter()
    assert len(read(path.with_name("0.yaml")).tree) == 19
    assert time.perf_counter() - start < WATCHDOG


@pytest.mark.parametrize("base", ["3", "{a: b}", "null"])
def test_a_base_that_is_no_path_is_an_error(base: str, write: Write) -> None:
    with pytest.raises(ConfigError, match="_base_: a path or a list of paths, not"):
        read(write("a.yaml", f"_base_: {base}"))


def test_a_base_that_is_not_there_names_the_including_file_and_the_nearest(write: Write) -> None:
    path = write("a.yaml", "_base_: base/trian.yaml")
    with pytest.raises(ConfigError) as error:
        read(path)
    assert str(error.value) == (
        f"{path}: _base_: no config file 'base/trian.yaml'. Did you mean 'base/train.yaml'?"
    )


# ---- finding


def test_a_config_is_found_by_path_by_name_and_among_the_packaged_ones(write: Write) -> None:
    path = write("mine.yaml", "a: 1")
    assert find(str(path)) == path
    assert find("mine", path.parent) == path
    assert (
        find("quickstart").resolve()
        == find("configs/quickstart.yaml").resolve()
        == config_root() / "quickstart.yaml"
    )


def test_a_config_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as error:
        find("quikstart.yaml")
    assert str(error.value) == ("no config file 'quikstart.yaml'. Did you mean 'quickstart.yaml'?")


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("configs/blip/pretrain_scene.yaml", "configs/blip/pretrain_scenes.yaml"),
        ("blip/pretrain_scene", "blip/pretrain_scenes.yaml"),
    ],
)
def test_the_nearest_config_is_spelt_as_the_path_is(path: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as error:
        find(path)
    assert str(error.value) == f"no config file {path!r}. Did you mean {nearest!r}?"


def test_what_is_there_and_no_config_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"notes\.md: a file of another kind; a config is"):
        find(str(tmp_path / "notes.md"))
    with pytest.raises(ConfigError, match="a folder; a config is"):
        find(str(tmp_path))


def test_a_config_that_is_near_none_says_where_they_are_listed() -> None:
    with pytest.raises(ConfigError, match="`lavis-lite list configs` lists those"):
        find("elsewhere/what.yaml")


def test_a_name_in_a_config_is_looked_up_beside_it(write: Write) -> None:
    origin = str(write("run.yaml", ""))
    plugin = write("plugin.py", "")
    assert beside("plugin.py", origin) == str(plugin)
    assert beside("other.py", origin) == "other.py"
    assert beside("plugin.py", None) == "plugin.py"
    assert beside(3, origin) == 3


def test_key_paths_are_spelled_as_they_are_written() -> None:
    assert spell(("data", "train", 0, "split")) == "data.train[0].split"
    assert spell((1, "a")) == "[1].a"


# ---- hostile and broken files


def test_a_key_that_stands_twice_is_an_error_with_its_line(write: Write) -> None:
    path = write("a.yaml", "run: {seed: 1}\nmodel: 2\nrun: {seed: 3}\n")
    with pytest.raises(ConfigError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: cannot be read as YAML (line 3): ")


@pytest.mark.fault(40)
def test_a_tag_that_would_run_code_is_an_error_and_runs_nothing(
    write: Write, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    path = write("a.yaml", f"a: !!python/object/apply:os.mkdir ['{marker}']")
    with pytest.raises(ConfigError, match=r"cannot be read as YAML \(line 1\)") as error:
        read(path)
    assert str(path) in str(error.value)
    assert not marker.exists()


NO_YAML = "cannot be read as YAML"


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for number in range(1, 10):
        lines.append(f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (bomb(), NO_YAML),
        ("a: " + "[" * 5000 + "]" * 5000, NO_YAML),
        ("a: " + "{a: " * 5000 + "1" + "}" * 5000, NO_YAML),
        ("\n".join(" " * depth + "a:" for depth in range(1200)), NO_YAML),
        ("a: 1\n" * (MAX_BYTES // 5 + 1), "larger than 1000000 bytes"),
        ("a: [1", NO_YAML),
        ("a: \x00", NO_YAML),
        ("- 1\n- 2", "a mapping is expected, not list"),
        ("3", NO_YAML),
        ("null: 1", NO_YAML),
    ],
    ids=[
        "alias bomb",
        "5000 lists",
        "5000 mappings",
        "1200 blocks",
        "too large",
        "cut",
        "binary",
        "list",
        "number",
        "null key",
    ],
)
def test_what_is_no_plain_finite_tree_is_an_error_at_once(
    text: str, why: str, write: Write
) -> None:
    path = write("a.yaml", text)
    start = time.perf_counter()
    with pytest.raises(ConfigError) as error:
        read(path)
    assert time.perf_counter() - start < WATCHDOG
    assert str(error.value).startswith(f"{path}: {why}")
    assert len(str(error.value)) < 800


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xff\xfe\x80")
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read as YAML"):
        read(path)
