"""`lavis-lite convert`: each way through it, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lavis_lite import cli, create_model, load_model
from lavis_lite.checkpoint.weights import read_metadata, read_weights
from lavis_lite.cli.convert import FORMATS

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Command:
    """``convert(*words)`` -> exit code, and stdout or, in case of an error, stderr."""

    def command(*words: object) -> tuple[int, str]:
        code = cli.main(["convert", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out if code == 0 else err

    return command


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    """A pre-trained model's file as its authors would save it."""
    model = create_model("blip_pretrain", "tiny")
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "model.pth")
    return tmp_path / "model.pth"


def test_a_pth_file_becomes_safetensors_key_by_key(pth: Path, convert: Command) -> None:
    target = pth.with_suffix(".safetensors")
    code, said = convert(pth, target)
    before, after = read_weights(pth), read_weights(target)
    assert code == 0
    assert said == f"wrote {target}: {len(before)} tensors under their own keys\n"
    assert set(after) == set(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert read_metadata(target) == {"source": str(pth)}
    assert target.stat().st_size <= pth.stat().st_size  # tied tensors are stored once there too


def test_a_model_on_the_way_gives_its_keys_and_leaves_out_the_rest(
    pth: Path, tmp_path: Path, convert: Command
) -> None:
    target = tmp_path / "caption.safetensors"
    code, said = convert(pth, target, "--model", "blip_caption.tiny", "image_size=96")
    assert code == 0
    assert "visual_encoder.pos_embed" in said
    assert "interpolated" in said
    captioner = create_model("blip_caption", "tiny", image_size=96, checkpoint=str(target))
    assert captioner.load_report.converted == []
    assert set(read_weights(target)) == set(captioner.state_dict())


def test_a_model_is_written_for_transformers_and_comes_back(
    pth: Path, tmp_path: Path, convert: Command
) -> None:
    folder, back = tmp_path / "folder", tmp_path / "back.safetensors"
    code, said = convert(pth, folder, "--model", "blip_caption.tiny", "--to", "transformers")
    assert code == 0
    assert said.endswith(
        f"wrote {folder}: load it with transformers.BlipForConditionalGeneration\n"
    )
    assert convert(folder, back, "--model", "blip_caption.tiny")[0] == 0
    before = read_weights(pth)
    after = read_weights(back)
    assert all(torch.equal(after[key], before[key]) for key in after)


def test_released_weights_are_converted_by_the_name_of_their_model(
    tmp_path: Path, convert: Command
) -> None:
    target = tmp_path / "scenes.safetensors"
    code, said = convert("released", target, "--model", "blip_caption.scenes")
    assert code == 0
    assert said.startswith("released -> BlipCaption: ")
    model = create_model("blip_caption", "scenes", pretrained=True)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in read_weights(target).items())


def test_a_folder_that_names_its_model_needs_no_name(
    pth: Path, tmp_path: Path, convert: Command
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert convert(pth, ours, "--model", "blip_caption.tiny", "--to", "folder")[0] == 0
    code, said = convert(ours, theirs, "--to", "transformers")
    assert code == 0
    assert said.startswith(f"{ours} -> BlipCaption: ")
    before, after = load_model(checkpoint=str(ours)), read_weights(theirs)
    words = "text_decoder.bert.embeddings.word_embeddings.weight"
    assert torch.equal(after[words], before.state_dict()[words])


REFUSED = [
    (["x.pth", "y.bin"], "y.bin: the name of a safetensors file ends with .safetensors"),
    (["x.pth", "out", "--to", "transformers"], "which model? Give its name"),
    (["x.pth", "y.safetensors", "image_size=96"], "image_size=96: needs --model NAME[.TYPE]"),
    (["x.pth", "y.safetensors"], "x.pth: No such file or directory"),
    (["x.pth", "y.safetensors", "--model", "blip_captoin"], "Did you mean 'blip_caption'?"),
    (["x.pth", "x.safetensors"], "x.safetensors: is there already; name another target"),
    (["hf://o", "y.safetensors"], "write it as hf://owner/repo/file"),
]


@pytest.mark.parametrize(("words", "complaint"), REFUSED)
def test_what_cannot_be_converted_is_one_line_and_exit_code_2(
    words: list[str],
    complaint: str,
    tmp_path: Path,
    convert: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.safetensors").touch()
    code, said = convert(*words)
    assert code == 2
    assert complaint in said
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_model_that_transformers_does_not_have_is_refused(
    pth: Path, tmp_path: Path, convert: Command
) -> None:
    words = ["--model", "blip_pretrain.tiny", "--to", "transformers"]
    code, said = convert(pth, tmp_path / "out", *words)
    assert code == 2
    assert said.startswith("ConfigError: transformers has no class for BlipPretrain: ")
    assert not (tmp_path / "out").exists()


def test_the_help_names_every_format_and_loads_no_torch() -> None:
    code = (
        "import sys; from lavis_lite import cli\n"
        "try: cli.main(['convert', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"{{{','.join(FORMATS)}}}" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
