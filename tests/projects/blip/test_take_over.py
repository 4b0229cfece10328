"""A pre-training that two processes began is continued by one, and the other way round."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from two_processes import ProcessFailed, run_on_two_processes

from lavis_lite import config, runners
from lavis_lite.runners.train import loop

STEPS, STOP = 6, 2


def pretrain(folder: str, processes: int) -> None:
    """Contrast over all processes, with queue and momentum; hard negatives; language modelling."""
    overrides = [
        "model.type=tiny",
        "model.image_size=32",
        "model.vision={name: timm/vit_base_patch16_224, embed_dim: 16, depth: 1, num_heads: 2}",
        "model.text={name: med, width: 16, depth: 1, num_heads: 2, mlp_width: 32, dropout: 0.0}",
        "model.losses.itc={name: itc, queue_size: 16, negatives: global}",
        "data.train=[{name: scenes, split: human, size: 40, image_size: 32}]",
        f"data.batch_size={8 // processes}",
        "evaluate=[]",
        f"run.output_dir={folder}",
        f"run.max_steps={STEPS}",
        "run.log_every=1",
        "run.loggers=[jsonl]",
    ]
    runners.run(config.load_and_bind("blip/pretrain_scenes", overrides))


def begin(folder: str, processes: int) -> None:
    """The first steps, ended by SIGTERM."""
    train_step = loop.train_step

    def signalled(training, batches):
        if training.step == STOP - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(training, batches)

    loop.train_step = signalled  # this process ends with it
    pretrain(folder, processes)


def losses(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in r.items() if k == "step" or k.startswith("loss")} for r in lines]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    pretrain(str(folder), 1)
    return losses(folder)


@pytest.mark.fault(10)
@pytest.mark.parametrize("first", [1, 2])
def test_blip_goes_on_with_the_same_losses_on_another_number_of_processes(
    tmp_path, straight, first, monkeypatch
):
    if first == 2:
        with pytest.raises(ProcessFailed, match="SystemExit: 143"):
            run_on_two_processes(begin, str(tmp_path), 2)
        pretrain(str(tmp_path), 1)
    else:
        monkeypatch.setattr(loop, "train_step", loop.train_step)  # put back after
        with pytest.raises(SystemExit, match="143"):
            begin(str(tmp_path), 1)
        monkeypatch.undo()
        run_on_two_processes(pretrain, str(tmp_path), 2)
    ours = losses(tmp_path)
    assert [record["step"] for record in ours] == list(range(1, STEPS + 1))
    for mine, its in zip(ours, straight, strict=True):
        assert mine == pytest.approx(its, rel=1e-5)
