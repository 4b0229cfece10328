"""The whole way on an accelerator: training in each precision, resuming, retrieval, captions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import records

from lavis_lite import create_model, runners
from lavis_lite.checkpoint.weights import load_state, read_weights
from lavis_lite.config import load_and_bind
from lavis_lite.modules.layers.tower_layers import recompute_activations
from lavis_lite.runners.train import loop
from lavis_lite.runners.train.training import Training

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
CONFIG = """
runner: {name: train}
model:
  name: blip_pretrain
  type: tiny
  text: {dropout: 0.0}  # each device draws its own
  losses:
    itc: {name: itc, queue_size: 16}
    itm: {name: itm}
    lm: {name: lm}
data:
  train: [{name: scenes, split: human}]
  processors:
    image: {train: {name: blip_image_eval}, eval: {name: blip_image_eval}}
    text: {train: {name: blip_caption}, eval: {name: blip_caption}}
  batch_size: 8
  num_workers: 0
evaluate:
  - {name: retrieval, top_k: 4, data: {name: scenes, split: test, size: 8}}
optim: {lr: 1e-3}
run: {output_dir: nowhere, max_steps: 3, log_every: 1, checkpoint_every: 1}
"""


class Stopped(Exception):
    """What ends a run early here."""


def config(folder: Path, device: str, precision: str) -> Any:
    path = folder.with_suffix(".yaml")
    path.write_text(CONFIG)
    changes = {"output_dir": folder, "device": device, "precision": precision}
    return load_and_bind(path, [f"run.{name}={value}" for name, value in changes.items()])


def steps(folder: Path) -> list[dict[str, Any]]:
    return [record for record in records(folder) if "loss" in record]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_trains_resumes_and_retrieves(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    train_step = loop.train_step

    def stops(training: Training, batches: Any) -> Any:
        if training.step == 2:
            raise Stopped
        return train_step(training, batches)

    monkeypatch.setattr(loop, "train_step", stops)
    with pytest.raises(Stopped):
        runners.run(config(folder, DEVICE, precision))
    monkeypatch.undo()
    summary = runners.run(config(folder, DEVICE, precision))
    assert [record["step"] for record in steps(folder)] == [1, 2, 3]
    assert all(math.isfinite(record["loss"]) for record in steps(folder))
    assert 0 <= summary["metrics"]["retrieval/r_mean"] <= 100


def test_the_first_loss_is_that_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # convolutions in full fp32
    losses = []
    for device in ("cpu", DEVICE):
        runners.run(config(tmp_path / device, device, "fp32"))
        losses.append(steps(tmp_path / device)[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)


def test_a_trained_model_writes_and_matches_there(tmp_path: Path) -> None:
    runners.run(config(tmp_path / "run", DEVICE, "bf16"))
    model = create_model("blip_pretrain", "tiny")
    load_state(model, read_weights(str(tmp_path / "run")))
    model.to(DEVICE)
    image = torch.randn(2, 3, 64, 64)
    for method in ("beam", "greedy", "nucleus"):
        assert len(model.generate({"image": image}, method=method, max_length=12)) == 2
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
        logits = model.match(model.encode_image(image.to(DEVICE)), ["a red circle"] * 2)
    assert logits.dtype == torch.float32


def test_recomputed_layers_that_drop_give_the_gradients_of_the_rest() -> None:
    found = []
    for keep in (None, "nothing", "products"):
        torch.manual_seed(0)
        model = create_model("blip_caption", "tiny", text={"dropout": 0.2}).to(DEVICE).train()
        if keep is not None:
            recompute_activations(model, "text", -1, keep)
        image = torch.randn(2, 3, model.image_size, model.image_size, device=DEVICE)
        torch.manual_seed(1)
        model({"image": image, "text_input": ["a red cube", "two spheres"]}).loss.backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    for other in found[1:]:
        for ours, theirs in zip(other, found[0], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
