"""Checkpointing, layer decay, frozen parts and average together, on a real model."""

from __future__ import annotations

import pytest
import torch
from toy_runs import records, run, weights

from lavis_lite import config
from lavis_lite.checkpoint.weights import read_weights
from lavis_lite.runners.train import loop

SWITCHES = [
    "run.gradient_checkpointing={vision: 2, text: -1}",
    "run.eval_weights=ema",
    "optim.layer_decay=0.8",
    "optim.ema_decay=0.9",
    "optim.freeze=[visual_encoder.patch_embed, text_decoder.cls]",
]


def captioner(folder, *overrides):
    return config.load_and_bind(
        "blip/caption_scenes.yaml",
        [
            "model.type=tiny",
            "data.train=[{name: scenes, split: human, size: 20}]",
            "data.batch_size=2",
            "evaluate=[{name: caption, generate: {max_length: 8, min_length: 5, num_beams: 1}, "
            "data: {name: scenes, split: test, size: 2}}]",
            f"run={{output_dir: {folder}, max_steps: 5, log_every: 1, checkpoint_every: 2}}",
            "run.device=cpu",
            *overrides,
        ],
    )


class Broken(Exception):
    pass


def test_a_run_with_every_switch_on_resumes_bit_for_bit(tmp_path, monkeypatch):
    run(captioner(tmp_path / "straight", *SWITCHES))
    step = loop.train_step

    def breaks(training, batches):
        if training.step == 3:
            raise Broken
        return step(training, batches)

    monkeypatch.setattr(loop, "train_step", breaks)
    with pytest.raises(Broken):
        run(captioner(tmp_path / "broken", *SWITCHES))
    monkeypatch.undo()
    run(captioner(tmp_path / "broken", *SWITCHES))
    folders = [tmp_path / "straight", tmp_path / "broken"]
    assert records(folders[0]) == records(folders[1])
    average = "checkpoints/step-00000005/ema.safetensors"
    for one, other in (
        [weights(folder) for folder in folders],
        [read_weights(folder / average) for folder in folders],
    ):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_checkpointing_may_be_switched_on_when_a_run_is_continued(tmp_path):
    run(captioner(tmp_path / "plain"))
    saved = captioner(tmp_path / "saved", "run.gradient_checkpointing={vision: -1, text: -1}")
    run(saved)
    assert records(tmp_path / "plain") == records(tmp_path / "saved")
    one, other = weights(tmp_path / "plain"), weights(tmp_path / "saved")
    assert all(torch.equal(one[name], other[name]) for name in one)
    summary = run(captioner(tmp_path / "saved"))  # the same run: nothing to do, and no error
    assert summary["step"] == 5
