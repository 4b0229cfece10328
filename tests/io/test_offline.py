"""With the network switched off nothing opens a socket, whatever asks for a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

from lavis_lite import create_model, load_dataset, load_model, registry
from lavis_lite.checkpoint.weights import read_weights
from lavis_lite.errors import DataError, DownloadError
from lavis_lite.io import paths
from lavis_lite.io.download import cache_name
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.modules.vision import timm_encoder

OFFLINE = ["LAVIS_LITE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
ATTEMPTS: list[tuple[Any, ...]] = []
WATCHING = False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook sees what C code does, too; it can never be taken away, only be idle."""
    if WATCHING and event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        ATTEMPTS.append((event, *arguments))


sys.addaudithook(watch)


@pytest.fixture(autouse=True, params=OFFLINE)
def no_network(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The cache folder, empty; afterwards nobody may have asked for an address."""
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(request.param, "1")
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys.modules[__name__], "WATCHING", True)
    ATTEMPTS.clear()
    yield tmp_path / "cache"
    assert ATTEMPTS == []


WANTED: dict[str, tuple[Callable[[], Any], str]] = {
    "a URL": (lambda: paths.local_path("https://a.example/w.pth"), "https://a.example/w.pth"),
    "the hub": (lambda: paths.local_path("hf://owner/repo/w.bin"), "hf://owner/repo/w.bin"),
    "weights": (lambda: read_weights("owner/repo-of-weights"), "owner/repo-of-weights"),
    "a released model": (lambda: load_model("blip_caption", "base_coco"), "https://"),
    "timm": (lambda: timm_encoder("resnet18", pretrained=True), "timm/resnet18.a1_in1k"),
    "a tokenizer": (lambda: load_tokenizer("owner/no-such-bert"), "owner/no-such-bert"),
    "a tokenizer of any kind": (lambda: load_tokenizer("hf/owner/no-such"), "owner/no-such"),
    "a text tower": (
        lambda: registry.build("text_backbone", {"name": "hf/owner/no-such", "pretrained": True}),
        "owner/no-such",
    ),
}


@pytest.mark.fault(37)
@pytest.mark.parametrize("what", WANTED)
def test_what_is_not_here_is_named_and_no_socket_opened(what: str, no_network: Path) -> None:
    ask, named = WANTED[what]
    with pytest.raises(DownloadError) as refused:
        ask()
    assert named in str(refused.value)


@pytest.mark.fault(37)
def test_the_message_says_what_to_fetch_and_where_to_put_it(no_network: Path) -> None:
    url = "https://a.example/w.pth"
    with pytest.raises(DownloadError) as refused:
        paths.local_path(url)
    assert url in str(refused.value)
    assert str(no_network / cache_name(url)) in str(refused.value)
    with pytest.raises(DownloadError) as refused:
        timm_encoder("resnet18", pretrained=True)
    assert "https://huggingface.co/timm/resnet18.a1_in1k/" in str(refused.value)
    assert f"put it at {no_network}/timm/resnet18.a1_in1k.safetensors" in str(refused.value)


@pytest.mark.fault(37)
def test_annotations_of_a_published_dataset_are_not_fetched(tmp_path: Path) -> None:
    with pytest.raises((DownloadError, DataError), match="lavis-lite data info coco_caption"):
        load_dataset("coco_caption", vis_path=str(tmp_path))


@pytest.mark.fault(37)
def test_timms_weights_are_taken_from_where_the_message_says(no_network: Path) -> None:
    released = timm.create_model("test_vit")
    target = no_network / "timm" / "test_vit.r160_in1k.safetensors"
    with pytest.raises(DownloadError, match=str(target)):
        timm_encoder("test_vit", pretrained=True, image_size=160)
    target.parent.mkdir(parents=True)
    save_file(released.state_dict(), target)
    loaded = timm_encoder("test_vit", pretrained=True, image_size=160).state_dict()
    assert all((loaded[key] == released.state_dict()[key]).all() for key in loaded)


@pytest.mark.fault(37)
def test_random_weights_need_no_network() -> None:
    model = create_model("blip_caption", "tiny", vision={"name": "timm/test_vit"})
    assert sum(p.numel() for p in model.visual_encoder.parameters()) > 0
