"""A training run starts at step 0, or at the newest checkpoint of its folder."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from lavis_lite import distributed
from lavis_lite.checkpoint.checkpointer import Checkpointer
from lavis_lite.config.schema import TrainConfig
from lavis_lite.errors import ConfigError
from lavis_lite.runners.run_folder import RunFolder
from lavis_lite.runners.settings import (
    Settings,
    at_default,
    differences,
    settings,
    without_effect,
)

log = logging.getLogger(__name__)


_LENGTH = "run.max_steps"


class Start(NamedTuple):
    """The starting point of a run.

    Args:
        checkpointer: the checkpoints of its folder.
        checkpoint: the one that it continues from; None for a new run.
        measures_anew: what is evaluated has changed since, so that earlier metrics do not count.
        is_complete: nothing is left to do.
    """

    checkpointer: Checkpointer
    checkpoint: Path | None
    measures_anew: bool
    is_complete: bool


def find_start(config: TrainConfig, folder: RunFolder) -> Start:
    """Look into the folder; every process comes to the same result.

    A folder without a checkpoint is a new run, whatever was tried in it before.

    Raises:
        ConfigError: it holds another kind of run, or one with settings that make it another.
        NothingToResume: it holds checkpoints, and none is whole.
    """
    run = config.run
    checkpointer = Checkpointer(
        folder.checkpoints, run.keep_last, run.keep_best, on_error=run.on_disk_full
    )
    folder.refuse_other_kind(config.runner.name)
    newest, is_complete = checkpointer.newest(), folder.summary() is not None
    if newest is None and not is_complete:
        return Start(checkpointer, None, measures_anew=False, is_complete=False)
    old, new = folder.last_settings() or {}, settings(config, distributed.world_size())
    unused, ignored = set(at_default(config)), without_effect(config)
    lengthened = _lengthened(old, new, unused, ignored)
    if lengthened:
        if newest is None:
            raise ConfigError(
                f"run.output_dir: {folder.path} is complete and its checkpoints are gone, so the "
                "run cannot be lengthened; undo the change of run.max_steps"
            )
        log.info("run.max_steps: %d is now %d: the run is lengthened", *lengthened)
        old = {**old, _LENGTH: new[_LENGTH]}
    if changed := differences(old, new, evaluation=False, unused=unused, ignored=ignored):
        raise ConfigError(
            f"run.output_dir: {folder.path} holds a run with other settings:\n  "
            + "\n  ".join(changed)
            + "\nUse another run.output_dir (there, model.checkpoint="
            + f"{folder.path} starts from these weights), or delete the folder to start anew"
        )
    if lengthened and is_complete:
        folder.reopen()
        is_complete = False
    measures_anew = bool(differences(old, new, unused=unused, ignored=ignored))
    if is_complete and measures_anew:
        if newest is None and config.run.max_steps:
            raise ConfigError(
                f"run.output_dir: {folder.path} is complete and its checkpoints are gone, so the "
                "changed `evaluate` cannot be computed; undo the change"
            )
        log.info("only what is evaluated has changed: evaluates the finished model again")
        folder.reopen()
    return Start(checkpointer, newest, measures_anew, is_complete and not measures_anew)


def _lengthened(
    old: Settings, new: Settings, unused: Collection[str], ignored: Collection[str]
) -> tuple[int, int] | None:
    """Return the steps of before and of now, where nothing but a greater number of them changed.

    The schedule of the learning rate is then that of the longer run, from the step reached on.
    """
    before, now = old.get(_LENGTH), new.get(_LENGTH)
    if not isinstance(before, int) or not isinstance(now, int) or not 0 < before < now:
        return None
    longer = {**old, _LENGTH: now}
    others = differences(longer, new, evaluation=False, unused=unused, ignored=ignored)
    return None if others else (before, now)
