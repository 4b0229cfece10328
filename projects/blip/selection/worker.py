"""A worker: takes blocks, pass by pass, until the selection is done; any number work side by side.

They meet in the output folder alone, as CapFilt's do: a block is taken by a lock on a file, and
what a pass found in all blocks is added up by whoever comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lavis_lite.projects.blip.capfilt.claims import locked
from lavis_lite.projects.blip.capfilt.executors import Place
from lavis_lite.projects.blip.selection.config import SelectionConfig
from lavis_lite.projects.blip.selection.passes import do_all, do_block, partial, result
from lavis_lite.projects.blip.selection.plan import Pass, Plan, make_plan
from lavis_lite.registry.plugins import load_plugin


def work(config: SelectionConfig, block_size: int, place: Place) -> None:
    """Work until every pass is done, by this worker or another.

    Raises:
        ConfigError: rules that do not fit the records.
        DataError: records that cannot be read.
    """
    import pyarrow as pa

    for plugin in config.plugins:
        load_plugin(plugin)
    pa.set_cpu_count(config.run.num_threads)
    plan = make_plan(config, block_size)
    for turn in plan.passes:
        try:
            if not result(plan, turn).is_file() and not plan.folder.is_whole(plan.fingerprint):
                _take_blocks(plan, turn, place)
                _take_all(plan, turn)
        except FileNotFoundError:  # another start of the selection has finished it and tidied up
            if not plan.folder.is_whole(plan.fingerprint):
                raise


def _take_blocks(plan: Plan, turn: Pass, place: Place) -> None:
    """Do a pass's blocks; the first round leaves alone what others hold, the second waits."""
    folder = plan.folder.work / turn.name
    folder.mkdir(parents=True, exist_ok=True)
    for wait in (False, True):
        for number in _order(len(plan.pool.blocks), place):
            if not partial(plan, turn, number).is_file():
                with locked(_lock(folder, number), wait=wait) as mine:
                    if mine and not partial(plan, turn, number).is_file():
                        do_block(plan, turn, number)


def _take_all(plan: Plan, turn: Pass) -> None:
    with locked(plan.folder.work / turn.name / "all.lock", wait=True):
        if not result(plan, turn).is_file():
            do_all(plan, turn)


def _lock(folder: Path, number: int) -> Path:
    return folder / f"block-{number:06d}.lock"


def _order(num_blocks: int, place: Place) -> Iterator[int]:
    """Every block, beginning with those that other workers begin with last."""
    for turn in range(place.workers):
        yield from range((place.number + turn) % place.workers, num_blocks, place.workers)
