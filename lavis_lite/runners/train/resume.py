"""Where a training run starts: what its folder already holds, and whether it is the same run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from lavis_lite import distributed
from lavis_lite.checkpoint.checkpointer import Checkpointer
from lavis_lite.config.schema import TrainConfig
from lavis_lite.errors import ConfigError
from lavis_lite.runners.run_folder import RunFolder
from lavis_lite.runners.settings import at_default, differences, settings, without_effect

log = logging.getLogger(__name__)


class Start(NamedTuple):
    """What a run continues from.

    ``checkpoint`` is None for a new run. ``measures_anew`` says that what is evaluated has changed
    since, so that figures of before do not count. ``is_complete`` leaves nothing to do.
    """

    checkpoint: Path | None
    measures_anew: bool
    is_complete: bool


def find_start(config: TrainConfig, folder: RunFolder, checkpointer: Checkpointer) -> Start:
    """Look into the folder; every process comes to the same result.

    A folder without a checkpoint is a new run, whatever was tried in it before.

    Raises:
        ConfigError: it holds another kind of run, or one with settings that make it another.
        NothingToResume: it holds checkpoints, and none is whole.
    """
    folder.refuse_other_kind(config.runner.name)
    newest, is_complete = checkpointer.newest(), folder.summary() is not None
    if newest is None and not is_complete:
        return Start(None, measures_anew=False, is_complete=False)
    old, new = folder.last_settings() or {}, settings(config, distributed.world_size())
    unused, ignored = set(at_default(config)), without_effect(config)
    if changed := differences(old, new, evaluation=False, unused=unused, ignored=ignored):
        raise ConfigError(
            f"run.output_dir: {folder.path} holds a run with other settings:\n  "
            + "\n  ".join(changed)
            + "\nUse another run.output_dir (there, model.checkpoint="
            + f"{folder.path} starts from these weights), or delete the folder to start anew"
        )
    measures_anew = bool(differences(old, new, unused=unused, ignored=ignored))
    if is_complete and measures_anew:
        if newest is None and config.run.max_steps:
            raise ConfigError(
                f"run.output_dir: {folder.path} is complete and its checkpoints are gone, so the "
                "changed `evaluate` cannot be computed; undo the change"
            )
        log.info("only what is evaluated has changed: evaluates the finished model again")
        folder.reopen()
    return Start(newest, measures_anew, is_complete and not measures_anew)
