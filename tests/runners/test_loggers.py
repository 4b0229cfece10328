"""Records on their way to the file, the console and TensorBoard."""

from __future__ import annotations

import json
import math

import pytest

from lavis_lite.errors import ConfigError
from lavis_lite.runners.loggers import (
    ConsoleLog,
    JsonlLog,
    check_loggers,
    open_loggers,
    read_records,
)
from lavis_lite.runners.run_folder import RunFolder

RECORD = {
    "step": 20, "loss": 5.125, "loss_itc": 4.5, "loss_itm": 0.625,
    "lr": 3e-5, "grad_norm": 1.5, "samples_per_second": 118.4,
}  # fmt: skip


def test_records_to_be_done_again_and_half_written_lines_are_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "lo')
    log = JsonlLog(path, keep=lambda record: record["step"] <= 2)
    log.write({"step": 3, "loss": math.nan})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "loss": null}\n'
    log.close()
    assert [r["step"] for r in read_records(path)] == [1, 2, 3]


def test_the_console_shows_guessing_beside_the_loss_that_has_it():
    line = ConsoleLog(3000, {"loss_itm": 0.636514}).line(RECORD)
    assert line == (
        "step 20/3000  loss 5.125  itc 4.5  itm 0.625 (guessing 0.637)  grad_norm 1.5"
        "  lr 3.0e-05  118 samples/s"
    )


def test_the_console_names_the_evaluation():
    record = {"step": 9, "evaluate": "retrieval", "txt_r1": 51.25, "seconds": 3.2}
    assert ConsoleLog(9, {}).line(record) == "step 9/9  retrieval:  txt_r1 51.25  (3 s)"


def test_tensorboard_gets_every_number(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = RunFolder(tmp_path)
    loggers = open_loggers(
        ["tensorboard"], folder, step=0, max_steps=20, guessing={}, keep=lambda _: True
    )
    for logger in loggers:
        logger.write(RECORD)
        logger.write({"step": 20, "evaluate": "caption", "cider_d": 1.5})
        logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Scalars("train/loss_itm")[0].value == 0.625
    assert events.Scalars("caption/cider_d")[0].step == 20
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0]) == RECORD


@pytest.mark.fault(52)
def test_a_missing_tensorboard_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"run.loggers: .*pip install 'lavis_lite\[log\]'"):
        check_loggers(["jsonl", "tensorboard"])
    check_loggers(["jsonl", "console"])
