"""Any config file, any override: read as it was meant, or refused in words."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lavis_lite import config as configs
from lavis_lite.config.files import read
from lavis_lite.config.overrides import parse_overrides
from lavis_lite.config.schema import DataConfig, OptimConfig, RunConfig, TrainConfig
from lavis_lite.errors import ConfigError
from lavis_lite.io.redaction import REDACTED, is_secret, redacted, redacted_word
from lavis_lite.registry.component import merge

KEYS = st.from_regex(r"[a-z][a-z_]{0,6}", fullmatch=True).filter(lambda key: key != "name")
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.text("abc xyz-_/", max_size=8),
    st.floats(-1e6, 1e6, allow_nan=False),
)  # fmt: skip
TREES = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(KEYS, TREES, max_size=4)
SECRET = "hunter2hunter2"


def read_text(text: str, folder: str) -> Any:
    path = Path(folder) / "run.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    return read(path).tree


@given(MAPPINGS)
@settings(max_examples=60)
def test_what_is_written_is_read(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert read_text(OmegaConf.to_yaml(OmegaConf.create(tree)), folder) == tree


@given(st.one_of(st.text(max_size=60), st.text("{}[]:-&*!|>'\"\n ab${}#,", max_size=60)))
@settings(max_examples=150)
def test_any_file_is_a_tree_or_an_error_that_names_it(text: str) -> None:
    assume("_base_" not in text)
    with tempfile.TemporaryDirectory() as folder:
        try:
            assert isinstance(read_text(text.encode("utf-8", "replace").decode(), folder), dict)
        except ConfigError as error:
            said = str(error)
        else:
            return
        assert str(Path(folder).resolve() / "run.yaml") in said


RUN = """
runner: {name: train}
model: {name: blip_caption, type: tiny}
data: {train: [{name: scenes}], batch_size: 2}
run: {output_dir: out, max_steps: 1}
"""
SECTIONS = {"": TrainConfig, "data": DataConfig, "run": RunConfig, "optim": OptimConfig}


@given(st.sampled_from(sorted(SECTIONS)), KEYS, TREES)
@settings(max_examples=60)
def test_a_key_that_nobody_knows_never_passes_in_silence(place: str, key: str, value: Any) -> None:
    assume(key not in {field.name for field in dataclasses.fields(SECTIONS[place])})
    spelled = f"{place}.{key}".lstrip(".")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.yaml").write_text(RUN)
        with pytest.raises(ConfigError) as error:
            configs.load(Path(folder) / "run.yaml", values={spelled: value})
    assert f"{spelled}: unknown key." in str(error.value)


@given(MAPPINGS, st.lists(st.tuples(KEYS, st.integers(0, 9)), min_size=1, max_size=4))
@settings(max_examples=80)
def test_an_override_changes_its_key_and_no_other(
    tree: dict[str, Any], given_: list[tuple[str, int]]
) -> None:
    overrides = parse_overrides([f"{key}={value}" for key, value in given_])
    merged = merge(tree, overrides)
    last = dict(given_)
    assert {key: merged[key] for key in last} == last
    assert {k: v for k, v in merged.items() if k not in last} == {
        k: v for k, v in tree.items() if k not in last
    }


SECRET_KEYS = st.sampled_from(["token", "api_key", "password", "hf_token", "client_secret"])
URLS = st.sampled_from(
    [
        f"https://user:{SECRET}@host/x.tar",
        f"https://host/{{00..09}}.tar?a=1&X-Amz-Signature={SECRET}",
        f"see http://host/x?sig={SECRET}&b=2, and more",
    ]
)


def planted(tree: Any, key: str, url: str) -> Any:
    """A secret under a key, and in a URL, at the ends of every branch of a tree."""
    if isinstance(tree, dict):
        return {**{k: planted(v, key, url) for k, v in tree.items()}, key: {"a": [SECRET, None]}}
    if isinstance(tree, list):
        return [*(planted(v, key, url) for v in tree), url]
    return tree


@given(TREES, SECRET_KEYS, URLS)
@settings(max_examples=80)
def test_no_secret_survives_and_nothing_else_changes(tree: Any, key: str, url: str) -> None:
    assume(not any(is_secret(k) for k in keys_of(tree)))
    assert redacted(tree) == tree
    covered = redacted(planted(tree, key, url))
    assert SECRET not in str(covered)
    assert redacted(covered) == covered
    assert str(covered).count("host") == str(planted(tree, key, url)).count("host")


def keys_of(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [*tree, *(k for v in tree.values() for k in keys_of(v))]
    return [k for v in tree for k in keys_of(v)] if isinstance(tree, list) else []


@given(st.text(max_size=80))
@settings(max_examples=150)
def test_any_text_can_be_redacted_and_once_is_enough(text: str) -> None:
    once = redacted_word(text)
    assert redacted_word(once) == once
    if REDACTED not in once:
        assert once == text


@given(st.text(max_size=200))
@settings(max_examples=100)
def test_any_override_is_read_or_refused_politely(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_overrides([f"a.b={text}"]), dict)
