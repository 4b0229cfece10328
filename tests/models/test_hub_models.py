"""Models on the hub: published as a folder, fetched at a commit, with tokens told to nobody."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_site import HubSite
from huggingface_hub import constants

from lavis_lite import cli, create_model, load_model, pipeline
from lavis_lite.errors import ConfigError, DownloadError
from lavis_lite.io import hub, hub_models
from lavis_lite.models.base import VisionLanguageModel
from lavis_lite.modules.text.load_tokenizer import PACKAGED

SECRET = "hf_ThisIsASecretOfTheTests"
NAME = "acme/captioner"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubSite]:
    with HubSite() as found:
        found.take(monkeypatch, tmp_path)
        yield found


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubSite]:
    """A hub that wants the token with every request."""
    with HubSite(token=SECRET) as found:
        found.take(monkeypatch, tmp_path)
        yield found


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model("blip_caption", "tiny", is_eval=True)


def same(one: Any, other: Any) -> bool:
    mine, its = one.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(mine[key], its[key]) for key in mine)


def card(site: HubSite, repository: str = NAME) -> tuple[dict[str, Any], str]:
    """The YAML of a published card, and all of it."""
    files = site.commits[repository][site.branches[repository]["main"]]
    text = files["README.md"].decode()
    return yaml.safe_load(text.split("---")[1]), text


def test_a_published_model_comes_back_to_the_bit_with_its_vocabulary(
    site: HubSite, tmp_path: Path
) -> None:
    (words := tmp_path / "words").mkdir()
    (words / "vocab.txt").write_text(f"{PACKAGED.read_text()}zebrafish\n")
    model: Any = create_model("blip_caption", "tiny", tokenizer=str(words))
    commit = model.push_to_hub(NAME, metrics={"CIDEr": 1.25})
    assert commit == f"{site.address}/{NAME}/commit/{site.branches[NAME]['main']}"
    files = site.commits[NAME][site.branches[NAME]["main"]]
    assert set(files) == {
        *(".gitattributes", "README.md", "config.json", "model.safetensors", "vocab.txt"),
    }
    for again in (
        load_model(checkpoint=NAME),
        create_model(checkpoint=f"hf://{NAME}"),
        type(model).from_pretrained(NAME),
        VisionLanguageModel.from_pretrained(NAME),
    ):
        assert type(again) is type(model)
        assert same(again, model)
        assert again.tokenizer.vocab == model.tokenizer.vocab
    assert pipeline(model=NAME).task == "image-to-text"


def test_the_card_says_what_it_is_and_how_to_load_it(site: HubSite, model: Any) -> None:
    model.push_to_hub(NAME, metrics={"CIDEr": 1.25}, private=True)
    (wish,) = site.created
    assert wish["visibility"] == "private"
    head, text = card(site)
    assert head["library_name"] == "lavis_lite"
    assert head["pipeline_tag"] == "image-to-text"
    assert "blip_caption" in head["tags"]
    assert f'checkpoint="{NAME}"' in text
    assert "| CIDEr | 1.25 |" in text


def test_a_revision_is_a_branch_or_a_commit_and_stays_what_it_was(site: HubSite) -> None:
    first, second = (create_model("blip_caption", "tiny") for _ in range(2))
    first.push_to_hub(NAME)
    pinned = site.branches[NAME]["main"]
    second.push_to_hub(NAME)
    first.push_to_hub(NAME, revision="older")
    assert not same(first, second)
    assert same(load_model(checkpoint=NAME), second)
    assert same(load_model(checkpoint=NAME, revision=pinned), first)
    assert same(load_model(checkpoint=f"{NAME}@{pinned}"), first)
    assert same(type(first).from_pretrained(NAME, revision="older"), first)
    assert same(pipeline(model=NAME, revision=pinned).model, first)
    with pytest.raises(DownloadError, match="acme/captioner at newer: no such revision"):
        load_model(checkpoint=NAME, revision="newer")


def test_what_was_fetched_once_loads_offline_and_the_rest_is_refused_at_once(
    site: HubSite, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.push_to_hub(NAME)
    load_model(checkpoint=NAME)
    monkeypatch.setenv("LAVIS_LITE_OFFLINE", "1")
    site.requests.clear()
    assert same(load_model(checkpoint=NAME), model)
    for call in (
        lambda: load_model(checkpoint="acme/other"),
        lambda: load_model(checkpoint=NAME, revision="older"),
        lambda: model.push_to_hub(NAME),
    ):
        with pytest.raises(DownloadError, match="switched off by the environment"):
            call()
    assert site.requests == []


def test_a_hub_that_cannot_be_reached_is_told_at_once(
    site: HubSite, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_tried", {})
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"not published: http://127\.0\.0\.1:9 cannot be"):
        model.push_to_hub(NAME)


def test_a_private_model_needs_a_token_which_nobody_is_told(
    locked: HubSite,
    model: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DownloadError, match="needs HF_TOKEN") as refused:
        model.push_to_hub(NAME)
    with pytest.raises(DownloadError, match="not published") as wrong:
        model.push_to_hub(NAME, token="hf_WrongTokenOfTheTests")
    assert "hf_WrongTokenOfTheTests" not in str(wrong.value)
    model.push_to_hub(NAME, token=SECRET)
    with pytest.raises(DownloadError, match="needs HF_TOKEN"):
        load_model(checkpoint=NAME)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert same(load_model(checkpoint=NAME), model)
    out, err = capfd.readouterr()
    assert SECRET not in f"{refused.value}{caplog.text}{out}{err}"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 4
    assert not any(SECRET.encode() in path.read_bytes() for path in written)
    published = locked.commits[NAME][locked.branches[NAME]["main"]]
    assert not any(SECRET.encode() in content for content in published.values())


def test_the_command_publishes_a_folder_and_nothing_else_of_it(
    site: HubSite, model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model.save_pretrained(tmp_path / "saved")
    (folder / "notes.txt").write_text("mine alone")
    (folder / ".env").write_text(f"HF_TOKEN={SECRET}")
    text = (folder / "README.md").read_text()
    at = "| Image size"
    (folder / "README.md").write_text(
        text.replace(at, f"| Trained from | {tmp_path}/start.pth |\n{at}")
    )
    words = ["push", str(folder), NAME, "--private", "--message", "The first"]
    assert cli.main(words) == 0
    assert f"load_model(checkpoint='{NAME}')" in capsys.readouterr().out
    files = site.commits[NAME][site.branches[NAME]["main"]]
    assert not {"notes.txt", ".env"} & set(files)
    assert "| Trained from | start.pth |" in card(site)[1]
    assert str(tmp_path) not in card(site)[1]
    assert same(load_model(checkpoint=NAME), model)


def test_what_is_no_model_and_no_repository_is_refused(
    site: HubSite, model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, name, says in (
        (tmp_path, NAME, "neither a folder of save_pretrained nor of a run"),
        (tmp_path / "gone", NAME, "neither a folder of save_pretrained nor of a run"),
        (tmp_path, "captioner", "a repository of the hub is expected, as owner/name"),
    ):
        assert cli.main(["push", str(folder), name]) == 2
        assert says in capsys.readouterr().err
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    assert cli.main(["push", str(tmp_path / "half"), NAME]) == 2
    assert "no model.safetensors" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="as owner/name"):
        model.push_to_hub("https://example.org/a/b")
    with pytest.raises(ConfigError, match="revision: it is of a repository"):
        load_model("blip_caption", "tiny", checkpoint=None, revision="main")
    assert site.commits == {}


def test_a_model_of_another_class_is_told(site: HubSite, model: Any) -> None:
    model.push_to_hub(NAME)
    other = type(create_model("clip", "tiny"))
    with pytest.raises(ConfigError, match="holds a BlipCaption, not a"):
        other.from_pretrained(NAME)


def test_a_repository_of_transformers_is_not_fetched_whole(site: HubSite) -> None:
    site.commits["acme/theirs"], site.branches["acme/theirs"] = {}, {}
    config = json.dumps({"model_type": "blip"}).encode()
    site.commit("acme/theirs", "main", {"config.json": config, "model.safetensors": b"x" * 10})
    with pytest.raises(ConfigError, match="which model"):
        load_model(checkpoint="acme/theirs")
    assert not [request for request in site.requests if "model.safetensors" in request]


def test_only_the_files_of_a_model_are_fetched_its_tokenizer_s_too(site: HubSite) -> None:
    site.commits[NAME], site.branches[NAME] = {}, {}
    files = {
        "config.json": json.dumps({"lavis_lite": {"format": 1}}).encode(),
        "model.safetensors": b"weights",
        "tokenizer/tokenizer.json": b"{}",
        "train.py": b"print()",
        "tokenizer/../../evil": b"",
    }
    commit = site.commit(NAME, "main", files)
    folder = hub_models.fetch_folder(NAME)
    assert folder is not None
    assert folder.name == commit
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"config.json", "model.safetensors", "tokenizer/tokenizer.json"}
