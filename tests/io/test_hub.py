"""A hub that cannot be reached is asked once, and the error says what to give instead."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from lavis_lite import registry
from lavis_lite.errors import DownloadError
from lavis_lite.io import hub, paths
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.modules.vision import timm_encoder

CONNECTIONS: list[Any] = []
WATCHED: list[int] = []


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook sees what C code does, too; it can never be taken away, only be idle."""
    is_of_ours = event == "socket.connect" and isinstance(arguments[1], tuple)
    if is_of_ours and arguments[1][1] in WATCHED:
        CONNECTIONS.append(arguments[1])


sys.addaudithook(watch)


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """The port of a hub at which nothing listens, with all caches empty."""
    for name in (*hub._OFFLINE, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path / "cache"))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        port = held.getsockname()[1]
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        CONNECTIONS.clear()
        WATCHED.append(port)
        yield port
        WATCHED.clear()


WANTED: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "a vocabulary": (
        lambda: load_tokenizer("bert-base-uncased"),
        ("`tokenizer=FOLDER`", "vocab.txt or tokenizer.json"),
    ),
    "a tokenizer of any kind": (
        lambda: load_tokenizer("hf/owner/no-such"),
        ("`tokenizer=hf/FOLDER`", "tokenizer_config.json"),
    ),
    "a text tower": (
        lambda: registry.build("text_backbone", {"name": "hf/owner/no-such", "pretrained": True}),
        ("`hf/FOLDER`", "config.json and model.safetensors"),
    ),
    "timm": (lambda: timm_encoder("resnet18", pretrained=True), ("resnet18.a1_in1k.safetensors",)),
    "a file": (lambda: paths.local_path("hf://owner/repo/w.bin"), ("hf://owner/repo/w.bin",)),
}


@pytest.mark.parametrize("what", WANTED)
def test_a_hub_that_cannot_be_reached_is_asked_once(what: str, closed_port: int) -> None:
    ask, named = WANTED[what]
    with pytest.raises(DownloadError) as refused:
        ask()
    assert [("127.0.0.1", closed_port)] == CONNECTIONS
    message = str(refused.value)
    assert f"http://127.0.0.1:{closed_port} cannot be reached" in message
    assert [word for word in named if word not in message] == []


def test_a_second_wish_within_a_minute_does_not_ask_again(closed_port: int) -> None:
    for _ in range(2):
        with pytest.raises(DownloadError):
            load_tokenizer("bert-base-uncased")
    assert len(CONNECTIONS) == 1


def test_a_hub_that_answers_is_asked_as_ever(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        assert hub.why_no_hub() is None
        with hub.hub_client("owner/repo"):
            assert constants.HF_HUB_OFFLINE is False
    with hub.hub_client(only_look=True):
        assert constants.HF_HUB_OFFLINE is True
    assert constants.HF_HUB_OFFLINE is False


def test_a_proxy_is_trusted_and_a_folder_needs_no_hub(
    closed_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with hub.hub_client(str(tmp_path)):
        assert constants.HF_HUB_OFFLINE is False
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert hub.why_no_hub() is None
    assert CONNECTIONS == []
