"""Weights from folders and from repositories of the hub, with the config beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import nn

from lavis_lite.checkpoint.locate import IN_FOLDERS, find_weights
from lavis_lite.checkpoint.weights import load_weights, read_weights
from lavis_lite.errors import CheckpointError, DownloadError

WEIGHTS = {"weight": torch.full((1, 1), 2.0), "bias": torch.full((1,), 3.0)}


class Configured(nn.Linear):
    """Refuses weights whose config does not suit it."""

    def __init__(self) -> None:
        super().__init__(1, 1)

    def check_config(self, config: Any, source: str) -> None:
        if config["heads"] != 12:
            raise CheckpointError(f"{source}: {config['heads']} heads")


def folder_with(folder: Path, config: dict[str, Any] | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(WEIGHTS, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


# ---- folders


def test_the_config_of_a_folder_is_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    model = Configured()
    before = model.weight.item()
    with pytest.raises(CheckpointError, match="8 heads"):
        load_weights(model, folder_with(tmp_path / "a", {"heads": 8}))
    assert model.weight.item() == before
    assert load_weights(model, folder_with(tmp_path / "b", {"heads": 12})).complete
    assert model.weight.item() == 2


@pytest.mark.parametrize("config", [None, "list"])
def test_a_folder_without_a_config_says_nothing(tmp_path: Path, config: str | None) -> None:
    folder = folder_with(tmp_path, None)
    if config:
        (folder / "config.json").write_text("[1]")
    assert find_weights(folder).config is None
    assert load_weights(Configured(), folder).complete


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, None)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json: cannot be read"):
        read_weights(folder)


def test_a_file_is_taken_without_the_config_beside_it(tmp_path: Path) -> None:
    file = folder_with(tmp_path, {"heads": 8}) / "model.safetensors"
    assert find_weights(file).config is None
    assert load_weights(Configured(), file).complete


def test_what_does_not_fit_is_said_of_its_source(tmp_path: Path) -> None:
    file = folder_with(tmp_path, None) / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"model\.safetensors: do not fit Linear"):
        load_weights(nn.Linear(2, 1), file)


# ---- the hub


Hub = Callable[..., list[tuple[str, str, str | None]]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_answers: None) -> Hub:
    """``hub({file: content})`` stands in for a repository; returns the list of what is asked."""
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("LAVIS_LITE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)

    def serve(files: dict[str, bytes], failure: Exception | None = None) -> Any:
        asked: list[tuple[str, str, str | None]] = []

        def hf_hub_download(repo: str, file: str, *, cache_dir: Path, **options: Any) -> str:
            asked.append((repo, file, options["revision"]))
            path = Path(cache_dir) / "snapshots" / file
            if options["local_files_only"] and not path.exists():
                raise LocalEntryNotFoundError(f"{file} is not in the cache")
            if failure is not None:
                raise failure
            if file not in files:
                raise EntryNotFoundError(f"404: {file}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[file])
            return str(path)

        monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
        return asked

    return serve


def same(weights: dict[str, torch.Tensor]) -> bool:
    equal = (torch.equal(tensor, WEIGHTS[key]) for key, tensor in weights.items())
    return weights.keys() == WEIGHTS.keys() and all(equal)


@pytest.mark.parametrize("source", ["acme/blip-base", "hf://acme/blip-base"])
def test_a_repository_gives_its_weights_and_its_config(hub: Hub, source: str) -> None:
    asked = hub(
        {
            "model.safetensors": safetensors.torch.save(WEIGHTS),
            "config.json": b'{"heads": 12}',
        }
    )
    assert same(read_weights(source))
    assert find_weights(source).config == {"heads": 12}
    assert load_weights(Configured(), source).complete
    assert set(asked) == {
        ("acme/blip-base", "model.safetensors", None),
        ("acme/blip-base", "config.json", None),
    }


def test_a_revision_is_asked_for(hub: Hub) -> None:
    asked = hub({"model.safetensors": safetensors.torch.save(WEIGHTS)})
    assert same(read_weights("hf://acme/blip@v1.0"))
    assert {revision for _, _, revision in asked} == {"v1.0"}


def test_an_older_repository_has_only_a_pickle(hub: Hub, tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "w.bin")
    asked = hub({"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()})
    assert same(read_weights("acme/blip"))
    assert [file for _, file, _ in asked] == [*IN_FOLDERS[:3], "config.json"]


def test_the_shards_of_a_repository_are_joined(hub: Hub) -> None:
    shards = {f"{key}.safetensors": safetensors.torch.save({key: WEIGHTS[key]}) for key in WEIGHTS}
    index = {"weight_map": {key: f"{key}.safetensors" for key in WEIGHTS}}
    hub({"model.safetensors.index.json": json.dumps(index).encode(), **shards})
    assert same(read_weights("acme/blip"))


def test_a_repository_without_weights_says_what_was_looked_for(hub: Hub) -> None:
    hub({"README.md": b"hello"})
    with pytest.raises(DownloadError, match=r"acme/blip: the hub's repository has none of"):
        read_weights("acme/blip")


def test_a_failing_hub_is_not_asked_again_and_the_disk_is_mentioned(hub: Hub) -> None:
    asked = hub({}, failure=OSError("401 Unauthorized"))
    with pytest.raises(DownloadError, match=r"acme/blip: nothing on this disk, and hf://.*401"):
        read_weights("acme/blip")
    assert len(asked) == 1


def test_offline_a_repository_comes_from_the_cache_or_is_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub({"model.safetensors": safetensors.torch.save(WEIGHTS)}, failure=None)
    read_weights("acme/blip")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert same(read_weights("acme/blip"))
    with pytest.MonkeyPatch.context() as empty:
        empty.setenv("LAVIS_LITE_CACHE", "elsewhere")
        with pytest.raises(
            DownloadError, match=r"acme/blip: the network is .*elsewhere/hub has no"
        ):
            read_weights("acme/blip")


@pytest.mark.parametrize("source", ["runs/none", "acme/blip.pth", "./acme/blip", "/acme/blip"])
def test_a_path_is_not_taken_for_a_repository(hub: Hub, source: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    asked = hub({"model.safetensors": safetensors.torch.save(WEIGHTS)})
    with pytest.raises(CheckpointError, match="No such file"):
        read_weights(source)
    assert asked == []
