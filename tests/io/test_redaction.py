"""Secrets: in a config where they must be, and in nothing that is written or shown."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from misbehaving_server import Site, whole
from omegaconf import OmegaConf
from toy_runs import TOY, toy_config, toy_evaluator, weights

from lavis_lite import cli
from lavis_lite import config as configs
from lavis_lite.errors import ConfigError, DownloadError
from lavis_lite.io.paths import local_path
from lavis_lite.io.redaction import (
    is_secret,
    log_to_stderr,
    redacted,
    redacted_urls,
    redacted_words,
)
from lavis_lite.models import zoo
from lavis_lite.models.folder import save
from lavis_lite.registry.component import ModelComponent

SECRET = "hunter2hunter2"

VAULT = """
import logging, os
from lavis_lite import registry

@registry.register("dataset", "vault_rows")
def vault_rows(api_key: str, url: str):
    assert api_key.endswith(os.environ["VAULT"]), "the dataset needs the true key"
    logging.getLogger("vault").info("reading %s", url)
    return registry.build("dataset", {"name": "toy_rows"})
"""


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plug-in with a dataset that needs a key."""
    path = tmp_path_factory.mktemp("plugin") / "vault.py"
    path.write_text(VAULT)
    return str(path)


@pytest.fixture
def pipeline(tmp_path: Path, vault: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``pipeline(url, secret, fault)`` runs the command line on a pipeline full of secrets."""
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VAULT", SECRET)
    tree = configs.to_dict(toy_config("nowhere", evaluate=[toy_evaluator()]))
    (tmp_path / "train.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))

    def run(url: str, secret: str, fault: str = "", folder: str = "out") -> int:
        monkeypatch.setenv("TOY_FAULT", fault)
        rows = {"name": "vault_rows", "api_key": secret, "url": f"https://me:{secret}@h/x"}
        given = {
            "plugins": [TOY, vault],
            "data.train": [rows],
            "model.checkpoint": url,
        }
        tree = {
            "runner": {"name": "pipeline"},
            "stages": {"train": {"cfg": str(tmp_path / "train.yaml"), "set": given}},
        }
        (tmp_path / "pipeline.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))
        words = ["run", "--cfg", str(tmp_path / "pipeline.yaml")]
        words += [f"run.output_dir={tmp_path / folder}", "run.report=report.html"]
        words.append(f"run.about=it starts from {url}")
        monkeypatch.setattr("sys.argv", ["lavis-lite", *words])
        return cli.main(words)

    return run


def weights_file(folder: Path) -> bytes:
    torch.manual_seed(5)
    torch.save(zoo.build_model(ModelComponent("toy_model")).state_dict(), folder / "start.pth")
    return (folder / "start.pth").read_bytes()


def leaks(folder: Path) -> list[str]:
    """Files below a folder that hold the secret, in their bytes or their names."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if SECRET in path.name or (path.is_file() and SECRET.encode() in path.read_bytes())
    ]


@pytest.mark.fault(43)
def test_a_run_leaves_no_secret_in_any_file_or_log_and_resumes_with_new_ones(
    tmp_path: Path, pipeline: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with Site(whole(weights_file(tmp_path))) as site:
        url = site.url(f"w.pth?X-Amz-Credential={SECRET}&X-Amz-Signature=1{SECRET}&part=7")
        with pytest.raises(SystemExit):
            pipeline(url, SECRET, "term:5")
        # Signatures expire: the next start has another one, and it is the same run.
        assert pipeline(url.replace("=1", "=2"), f"new-{SECRET}") == 0
        assert pipeline(url, SECRET, folder="undisturbed") == 0
    assert torch.equal(
        weights(out / "train")["head.weight"],
        weights(tmp_path / "undisturbed/train")["head.weight"],
    )
    shown = "".join(capfd.readouterr())
    assert "reading https://REDACTED@h/x" in shown
    assert SECRET not in shown
    for folder in (out, tmp_path / "cache"):
        assert len(list(folder.rglob("*.json"))) > 0
        assert leaks(folder) == []
    assert "it starts from http://127" in (out / "report.html").read_text()
    assert "part=7" in (out / "train" / "config.yaml").read_text()  # one still sees what was read


@pytest.mark.fault(43)
def test_a_model_card_and_its_folder_have_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path / "cache"))
    with Site(whole(weights_file(tmp_path))) as site:
        url = site.url(f"w.pth?token={SECRET}")
        model = zoo.build_model(ModelComponent("toy_model", checkpoint=url))
    model.card["args"] = {**model.card["args"], "api_key": SECRET}
    card = (save(model, tmp_path / "saved") / "README.md").read_text()
    assert "| Trained from | http://" in card
    assert leaks(tmp_path / "saved") == []


@pytest.mark.fault(43)
def test_what_a_run_wrote_down_asks_for_the_secrets_that_it_lacks(
    tmp_path: Path, vault: str
) -> None:
    tree = configs.to_dict(toy_config(tmp_path / "out"))
    tree["plugins"].append(vault)
    tree["data"]["train"] = [{"name": "vault_rows", "api_key": SECRET, "url": "x"}]
    written = tmp_path / "config.yaml"
    written.write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))
    written.write_text(configs.to_yaml(configs.load(written)))
    assert SECRET not in written.read_text()
    with pytest.raises(ConfigError) as error:
        configs.load_and_bind(written)
    assert str(error.value) == (
        f"{written}: data.train[0].api_key: was taken out when it was written; "
        "give it on the command line: data.train[0].api_key=..."
    )
    again = configs.load_and_bind(written, [f"data.train[0].api_key={SECRET}"])
    assert again.data.train[0].args["api_key"] == SECRET


def test_a_pipeline_that_was_written_down_says_how_to_give_a_stage_its_secrets(
    tmp_path: Path, vault: str
) -> None:
    (tmp_path / "train.yaml").write_text(configs.to_yaml(toy_config(tmp_path / "out")))
    rows = {"name": "vault_rows", "api_key": SECRET, "url": "x"}
    stage = {"cfg": str(tmp_path / "train.yaml"), "set": {"data.train": [rows]}}
    tree = {"runner": {"name": "pipeline"}, "plugins": [TOY, vault], "stages": {"train": stage}}
    written = tmp_path / "config.yaml"
    written.write_text(OmegaConf.to_yaml(OmegaConf.create(redacted(tree))))
    with pytest.raises(ConfigError, match=r"line: stages\.train\.set=\{data\.train: \.\.\.\}$"):
        configs.load_and_bind(written)
    given = f"stages.train.set={{data.train: [{{name: vault_rows, api_key: {SECRET}, url: x}}]}}"
    again = configs.load_and_bind(written, [given, f"run.output_dir={tmp_path / 'out'}"])
    assert again.stages["train"].set == {"data.train": [rows]}


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    "slips",
    [
        [f"data.train[0].api_key=[{SECRET}]", "data.train[0].urll=3"],
        [f"data.train[0].api_key={SECRET}", "data.train[0].api_key.more=1"],
        [f"data.train[0].api_key={{: {SECRET}: [}}"],
        [f"data.train[0]..api_key={SECRET}"],
    ],
)
def test_a_slip_beside_a_secret_does_not_show_it(
    slips: list[str], tmp_path: Path, vault: str
) -> None:
    tree = configs.to_dict(toy_config(tmp_path / "out"))
    tree["plugins"].append(vault)
    tree["data"]["train"] = [{"name": "vault_rows", "api_key": 12, "url": "x"}]
    (tmp_path / "run.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))
    with pytest.raises(ConfigError) as error:
        configs.load_and_bind(tmp_path / "run.yaml", slips)
    assert "api_key" in str(error.value)
    assert SECRET not in str(error.value)


def test_a_url_without_its_signature_is_not_asked_for() -> None:
    with pytest.raises(DownloadError, match=r"its signature was taken out .* give the whole URL"):
        local_path(redacted_urls("http://127.0.0.1:9/w.pth?sig=abc"))


@pytest.mark.parametrize(
    "key",
    [
        *(
            "token",
            "api_key",
            "hf_token",
            "password",
            "apiKey",
            "AWSSecretAccessKey",
            "client-secret",
        ),
        *("data.train[0].access_key_id", "X-Amz-Security-Token", "credentials", "private_key"),
    ],
)
def test_these_keys_name_secrets(key: str) -> None:
    assert is_secret(key)
    assert redacted({key: {"deep": [SECRET, 12]}}) == {key: {"deep": ["REDACTED", "REDACTED"]}}


@pytest.mark.parametrize(
    "key",
    [
        *("tokenizer", "max_tokens", "pad_token", "cls_token", "num_prefix_tokens", "class_token"),
        *("prompt_token", "video_token"),
        *("key", "same_key", "seed_key", "key_path", "passed", "path", "text.tokenizer", 3),
    ],
)
def test_these_keys_do_not(key: Any) -> None:
    assert redacted({key: "value"}) == {key: "value"}


def test_no_shipped_config_has_anything_to_redact() -> None:
    files = sorted(configs.files.config_root().rglob("*.yaml"))
    assert files
    for file in files:
        tree = OmegaConf.to_container(OmegaConf.load(file))
        assert redacted(tree) == tree


def test_switches_and_null_are_no_secrets() -> None:
    tree = {"token": None, "secret": True, "password": 1234}
    assert redacted(tree) == {"token": None, "secret": True, "password": "REDACTED"}


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://user:pw@host/x?a=b", "https://REDACTED@host/x?a=b"),
        ("https://token@host", "https://REDACTED@host"),
        ("https://h/x?sv=1&sig=aa%3D#z", "https://h/x?sv=1&sig=REDACTED#z"),
        ("https://h/{00..09}.tar?X-Goog-Signature=1", "https://h/{00..09}.tar?X-Goog-Signature=REDACTED"),
        ("https://h/x#access_token=1", "https://h/x#access_token=REDACTED"),
        ("hf://owner/repo/file@main", "hf://owner/repo/file@main"),
        ("a mail to me@host?key=x", "a mail to me@host?key=x"),
    ],
)  # fmt: skip
def test_of_a_url_only_what_signs_it_is_taken_out(url: str, seen: str) -> None:
    assert redacted_urls(url) == redacted_urls(seen) == seen


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (["run", "a.token=abc", "b=1"], ["run", "a.token=REDACTED", "b=1"]),
        (["m={name: x, token: abc, k: 3}"], ["m={name: x, token: REDACTED"]),
        (["d=[{n: w, 'password' : 'a, b'}]"], ["d=[{n: w, 'password' : REDACTED"]),
        (["d={secrets: [a, {b: c}]}"], ["d={secrets: REDACTED"]),
        (["a.password=it's, a {b} [c] \"d"], ["a.password=REDACTED"]),
        (["h={Authorization: Bearer abc}"], ["h={Authorization: REDACTED"]),
        (["run.about=use token=abc"], ["run.about=use token=REDACTED"]),
        (["--api-key", "a, b", "--out", "x"], ["--api-key", "REDACTED", "--out", "x"]),
        (["--api-key=a, b", "--token", "--out"], ["--api-key=REDACTED", "--token", "--out"]),
        (["token", "abc", "pad_token=[PAD]"], ["token", "abc", "pad_token=[PAD]"]),
        (["w=https://h/x?sig=a&n=3"], ["w=https://h/x?sig=REDACTED&n=3"]),
    ],
)
def test_of_a_command_line_only_values_of_secret_keys_are_taken_out(
    words: list[str], seen: list[str]
) -> None:
    assert redacted_words(words) == redacted_words(seen) == seen


def test_tracebacks_in_the_log_have_no_signed_urls(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(logging.INFO)
    try:
        raise OSError(f"https://h/x?sig={SECRET} is gone")
    except OSError:
        logging.getLogger("lavis_lite").exception("cannot read https://a:%s@h", SECRET)
    shown = capsys.readouterr().err
    assert "https://h/x?sig=REDACTED is gone" in shown
    assert SECRET not in shown


@pytest.mark.fault(43)
def test_an_error_on_the_command_line_shows_no_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path))
    monkeypatch.setitem(os.environ, "LAVIS_LITE_OFFLINE", "1")
    source = f"http://127.0.0.1:9/w.pth?X-Amz-Signature={SECRET}"
    assert cli.main(["convert", source, str(tmp_path / "w.safetensors")]) == 2
    shown = "".join(capsys.readouterr())
    assert "X-Amz-Signature=REDACTED: is not in the cache" in shown
    assert SECRET not in shown
