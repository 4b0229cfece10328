"""``run.compile`` in whole runs: training on two processes, and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import records, run, weights
from two_processes import run_on_two_processes

from lavis_lite import config
from lavis_lite.runners import evaluate


def captioning(folder: Path, *overrides: str) -> Any:
    return config.load_and_bind(
        "blip/caption_scenes.yaml",
        [
            "model.type=tiny",
            "model.text.dropout=0.0",
            "data.train=[{name: scenes, split: human, size: 20}]",
            "data.batch_size=2",
            "data.num_workers=0",
            "evaluate=[]",
            f"run={{output_dir: {folder}, max_steps: 2, log_every: 1, device: cpu}}",
            # Steps large enough to tell apart, but not where a gradient is nothing but rounding.
            "optim={lr: 0.01, warmup_steps: 0, eps: 1e-3, accumulate: 2}",
            *overrides,
        ],
    )


def run_traced(bound: Any) -> None:
    """A run whose layers are traced with their backward passes, but for which no code is written.

    Its process has nothing else to compile, so that nothing is put back.
    """
    real = torch.nn.Module.compile

    def compile_quickly(self: torch.nn.Module, **options: Any) -> None:
        real(self, backend="aot_eager", **options)

    torch.nn.Module.compile = compile_quickly  # type: ignore[method-assign, assignment]
    run(bound)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.slow
def test_two_processes_compile_and_learn_what_they_learn_otherwise(tmp_path: Path) -> None:
    again = "run.gradient_checkpointing={vision: 1, text: 1, keep: products}"
    run_on_two_processes(
        run_traced, captioning(tmp_path / "compiled", again, "run.compile=true"), timeout=300
    )
    run_on_two_processes(run, captioning(tmp_path / "plain", again))
    ours, theirs = weights(tmp_path / "compiled"), weights(tmp_path / "plain")
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    for mine, its in zip(records(tmp_path / "compiled"), records(tmp_path / "plain"), strict=True):
        assert mine.keys() == its.keys()
        assert mine == pytest.approx(its, rel=1e-4)


def test_an_evaluation_compiles_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(
        evaluate, "compile_towers", lambda model, where: compiled.append(type(model).__name__)
    )
    bound = config.load_and_bind(
        "blip/evaluate_scenes.yaml",
        [
            "model={name: blip_caption, type: tiny, checkpoint: null}",
            "evaluate=[{name: caption, generate: {max_length: 6, min_length: 5, num_beams: 1}, "
            "data: {name: scenes, split: test, size: 2}}]",
            f"run={{output_dir: {tmp_path}, device: cpu}}",
            "run.compile=true",
        ],
    )
    run(bound)
    assert compiled == ["BlipCaption"]
