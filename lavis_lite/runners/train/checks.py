"""The checks of a training config beyond its keys, types and names."""

from __future__ import annotations

from lavis_lite.config.evaluators import evaluator_names
from lavis_lite.config.schema import TrainConfig
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.runners.loggers import check_loggers


def check(config: TrainConfig) -> None:
    """Check how the values fit together; builds and writes nothing.

    Raises:
        ConfigError: all problems in one report.
    """
    optim, run = config.optim, config.run
    problems = []
    if run.max_steps and not config.data.train:
        problems.append("data.train: name at least one dataset to train on")
    if len(optim.betas) != 2:
        problems.append(f"optim.betas: two numbers, not {len(optim.betas)}")
    if not all(0 <= beta < 1 for beta in optim.betas):
        problems.append(f"optim.betas: at least 0 and below 1, not {optim.betas}")
    if optim.eps <= 0:
        problems.append(f"optim.eps: above 0, not {optim.eps}")
    if optim.schedule == "step" and not optim.decay_steps:
        problems.append("optim.decay_steps: the `step` schedule needs the steps between decays")
    if not 0 < optim.layer_decay <= 1:
        problems.append(f"optim.layer_decay: above 0 and at most 1, not {optim.layer_decay}")
    if optim.ema_decay >= 1:
        problems.append(f"optim.ema_decay: below 1, not {optim.ema_decay}")
    if run.eval_weights == "ema" and not optim.ema_decay:
        problems.append("run.eval_weights: 'ema', but optim.ema_decay is 0, which keeps no average")
    if optim.lora and optim.ema_decay:
        problems.append("optim.ema_decay: adapters have no moving average; use 0 with optim.lora")
    if optim.lora and not optim.lora.dropout < 1:
        problems.append(f"optim.lora.dropout: below 1, not {optim.lora.dropout}")
    if run.parallel == "fsdp":
        problems += [
            f"run.parallel: fsdp does not go with {other} yet; use ddp"
            for other, used in {
                "optim.ema_decay": optim.ema_decay,
                "optim.lora": optim.lora,
                "run.compile (weights are gathered inside layers)": run.compile,
                "run.precision: fp16": run.precision == "fp16",
            }.items()
            if used
        ]
    names = evaluator_names(config.evaluate)
    if run.keep_best and run.keep_best.partition("/")[0] not in names:
        near = suggest(run.keep_best.partition("/")[0], names)
        listed = ", ".join(f"{name}/..." for name in names) or "none, `evaluate` is empty"
        problems.append(f"run.keep_best: no {run.keep_best!r}.{near} Known: {listed}")
    try:
        check_loggers(run.loggers)
    except ConfigError as error:
        problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
