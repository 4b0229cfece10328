"""Repositories that bring code: nothing runs it, whatever is asked of them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavis_lite import registry
from lavis_lite.checkpoint.locate import find_weights
from lavis_lite.cli import convert
from lavis_lite.errors import CheckpointError, ConfigError
from lavis_lite.models.folder import read
from lavis_lite.modules.text.hf_tokenizer import HfTokenizer
from lavis_lite.projects.blip.capfilt.hf_captioner import HfCaptioner

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [p for folder in ("lavis_lite", "projects") for p in (ROOT / folder).rglob("*.py")]

CODE = """
import pathlib
pathlib.Path({marker!r}).touch()
from transformers import PretrainedConfig, PreTrainedModel
class Config(PretrainedConfig):
    model_type = "hostile"
class Model(PreTrainedModel):
    config_class = Config
class Tokenizer:
    pass
"""


@pytest.fixture(params=["hostile", "bert"])
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A repository whose code leaves a mark; of an unknown kind of model, and of a known one."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "code.py").write_text(CODE.format(marker=str(tmp_path / "marker")))
    auto = {"AutoConfig": "code.Config", "AutoTokenizer": ["code.Tokenizer", None]}
    for name in ("AutoModel", "AutoModelForImageTextToText", "AutoModelForVision2Seq"):
        auto[name] = "code.Model"
    size = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {"model_type": request.param, "auto_map": auto, "intermediate_size": 16, **size}
    processors = {"AutoImageProcessor": "code.Tokenizer", "AutoProcessor": "code.Tokenizer"}
    for name, content in {
        "config.json": config,
        "tokenizer_config.json": {"auto_map": auto, "tokenizer_class": "Tokenizer"},
        "preprocessor_config.json": {"auto_map": processors, "processor_class": "Tokenizer"},
    }.items():
        (folder / name).write_text(json.dumps(content))
    return folder


WAYS: dict[str, Callable[[Path], Any]] = {
    "text tower": lambda f: registry.build("text_backbone", {"name": f"hf/{f}"}),
    "its weights": lambda f: registry.build(
        "text_backbone", {"name": f"hf/{f}", "pretrained": True}
    ),
    "tokenizer": lambda f: HfTokenizer(str(f)),
    "captioner": lambda f: HfCaptioner(str(f)),
    "weights": lambda f: find_weights(str(f)),
    "converted": lambda f: convert.convert(str(f), f.parent / "w.safetensors"),
}


@pytest.mark.fault(45)
@pytest.mark.parametrize("way", WAYS)
def test_the_code_of_a_repository_is_never_run(way: str, hostile: Path, tmp_path: Path) -> None:
    unknown = "hostile" in (hostile / "config.json").read_text()
    if way == "text tower" and not unknown:
        assert WAYS[way](hostile).width == 16  # of a kind that transformers knows: its own code
    else:
        with pytest.raises((ConfigError, CheckpointError)) as error:
            WAYS[way](hostile)
        if unknown and "weights" not in way and way != "converted":
            assert "comes with code of its own, and such code is never run here" in str(error.value)
    assert read(hostile) is None
    assert not (tmp_path / "marker").exists()


@pytest.mark.fault(45)
def test_nothing_trusts_remote_code() -> None:
    said = [
        (path.relative_to(ROOT).as_posix(), ast.unparse(value))
        for path in SOURCES
        for name, value in named_values(ast.parse(path.read_text(encoding="utf-8")))
        if name == "trust_remote_code"
    ]
    assert len(said) >= 4
    assert [one for one in said if one[1] != "False"] == []


def named_values(tree: ast.AST) -> list[tuple[str | None, ast.expr]]:
    """Arguments by keyword, and the entries of dicts that may become some."""
    found: list[tuple[str | None, ast.expr]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            found.append((node.arg, node.value))
        elif isinstance(node, ast.Dict):
            found += [
                (key.value, value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            ]
    return found


LISTENING = {
    "listen",
    "bind",
    "serve_forever",
    "create_server",
    "start_server",
    "ThreadingHTTPServer",
}
SERVERS = {"http.server", "socketserver", "wsgiref", "xmlrpc", "flask", "fastapi", "gradio"} | {
    "uvicorn", "aiohttp", "tornado", "streamlit", "starlette"
}  # fmt: skip


@pytest.mark.fault(47)
def test_nothing_but_the_review_listens_and_that_takes_little() -> None:
    from lavis_lite.projects.blip.capfilt.review import guard

    assert guard.MOST_BYTES <= 64 * 1024
    found = []
    for path in SOURCES:
        where = path.relative_to(ROOT).as_posix()
        if where.startswith("projects/blip/capfilt/review/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        sockets = "socket" in path.read_text(encoding="utf-8")
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [
                f"{where}: imports {name}"
                for name in names
                if any(name == server or name.startswith(f"{server}.") for server in SERVERS)
            ]
            if sockets and isinstance(node, ast.Attribute) and node.attr in LISTENING:
                found.append(f"{where}:{node.lineno}: .{node.attr}")
    assert found == []
