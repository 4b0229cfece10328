"""The passes over the pool: what each writes down about a block, and makes of all blocks."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy

from lavis_lite.errors import DataError, listed, suggest
from lavis_lite.io.files import whole_file
from lavis_lite.io.json_files import read_json, write_json
from lavis_lite.projects.blip.selection import cuts, moments, precision, repeats, stats
from lavis_lite.projects.blip.selection.decide import (
    CHOSEN,
    Block,
    applied,
    chosen_table,
    kept_of_images,
)
from lavis_lite.projects.blip.selection.plan import (
    CHOOSE,
    COLUMNS,
    JUDGED,
    LOWER,
    REPEATS,
    UPPER,
    Pass,
    Plan,
    reduced_before,
)
from lavis_lite.projects.blip.selection.pool import (
    FIELD,
    IMAGE,
    block_table,
    read_column,
    write_columns,
)
from lavis_lite.projects.blip.selection.rules import PHASH, SHA256

log = logging.getLogger(__name__)
_SUFFIX = {COLUMNS: ".npz", UPPER: ".npz", LOWER: ".npz", JUDGED: ".npz", REPEATS: ".parquet"}
_ALL = {COLUMNS: ".npz", REPEATS: ".parquet"}


def partial(plan: Plan, turn: Pass, block: int) -> Path:
    """The file whose presence says that a pass is done with a block."""
    return plan.folder.partial(turn.name, block, _SUFFIX.get(turn.what, ".json"))


def result(plan: Plan, turn: Pass) -> Path:
    """The file whose presence says that a pass is done with all blocks."""
    return plan.folder.reduced(turn.name, _ALL.get(turn.what, ".json"))


def do_block(plan: Plan, turn: Pass, number: int) -> None:
    """Do a pass's work on a block and publish what it found."""
    with whole_file(partial(plan, turn, number)) as path:
        if turn.what == COLUMNS:
            _columns(plan, number, path)
        elif turn.what == CHOOSE:
            _choose(plan, number, path)
        else:
            _for_rule(plan, turn, number, path)


def do_all(plan: Plan, turn: Pass) -> None:
    """Make one of what a pass found in the blocks, and publish it."""
    with whole_file(result(plan, turn)) as path:
        if turn.what == COLUMNS:
            _all_columns(plan, path)
        elif turn.what == CHOOSE:
            blocks = range(len(plan.pool.blocks))
            total = stats.added(read_json(partial(plan, turn, block)) for block in blocks)
            path.write_text(json.dumps(total), "utf-8")
        else:
            _all_for_rule(plan, turn, path)


def _columns(plan: Plan, number: int, path: Path) -> None:
    table = block_table(plan.pool, number, plan.wanted)
    with whole_file(plan.columns(number)) as file:
        write_columns(table, file)
    block = Block(plan.columns(number), number, {}, {})
    shard, index = block.numbers("shard"), block.numbers("index")
    sampled = moments.sampled_images(shard, index, plan.pool.num_images)
    sound = block.sound
    found = {
        name: moments.moments_of(block.score(name)[sound], sampled[sound])
        for name in plan.pool.scores
    }
    moments.save(found, path)


def _all_columns(plan: Plan, path: Path) -> None:
    parts: dict[str, list[moments.Moments]] = {name: [] for name in plan.pool.scores}
    for number in range(len(plan.pool.blocks)):
        for name, own in moments.load(partial(plan, Pass(COLUMNS), number)).items():
            parts[name].append(own)
    total = {name: moments.merged(own) for name, own in parts.items()}
    moments.save(total, path)
    _refuse_unknown_fields(plan)
    for number, rule in enumerate(plan.rules):
        own = total.get(rule.score or "")
        if own is None or rule.kind != "threshold":
            continue
        above = rule.min is not None and rule.min > own.high
        if above or (rule.max is not None and rule.max < own.low):
            log.warning(
                "rules[%d]: %s keeps nothing: the scores are from %g to %g",
                number, rule.title, own.low, own.high,
            )  # fmt: skip


def _refuse_unknown_fields(plan: Plan) -> None:
    """Refuse a field that no row has; the nearest is one of the first record's."""
    missing = set(plan.wanted.fields)
    for number in range(len(plan.pool.blocks)):
        for name in list(missing):
            column = read_column(plan.columns(number), f"{FIELD}{name}")
            if column.null_count < len(column):
                missing.discard(name)
    if missing:
        name = sorted(missing)[0]
        fields = sorted(next(iter(plan.pool.run), {"fields": {}})["fields"])
        raise DataError(
            f"{plan.pool.run.folder}: no row has a field {name!r}.{suggest(name, fields)} "
            f"Fields: {listed(fields)}"
        )


def _for_rule(plan: Plan, turn: Pass, number: int, path: Path) -> None:
    assert turn.rule is not None
    rule = plan.rules[turn.rule]
    block = plan.block(number)
    before = reduced_before(plan, turn.rule)
    fate, _ = applied(block, plan.rules[: turn.rule], before)
    alive = (fate == CHOSEN) & block.of(rule.of)
    if turn.what == REPEATS:
        _candidates(plan, turn, block, alive, path)
        return
    assert rule.score is not None
    score = block.score(rule.score)
    alive &= ~numpy.isnan(score)
    if turn.what == JUDGED:
        precision.save(stats.judged_of(plan, block, alive, rule.score), path)
        return
    codes, strata = cuts.codes_of(score[alive]), block.strata(rule.by)[alive]
    if turn.what == UPPER:
        cuts.save(cuts.upper(codes, strata), path)
        return
    bins = read_json(result(plan, Pass(UPPER, turn.rule)))
    cuts.save(cuts.lower(codes, strata, {name: own[0] for name, own in bins.items()}), path)


def _candidates(plan: Plan, turn: Pass, block: Block, alive: numpy.ndarray, path: Path) -> None:
    """Write the living texts, or images with a living text, that may be there several times."""
    assert turn.rule is not None
    rule = plan.rules[turn.rule]
    places = numpy.flatnonzero(alive)
    best = rule.best
    score = block.score(best)[places] if best else numpy.zeros(len(places))
    rows = places
    if rule.duplicates == "images":
        image = block.numbers("image_row")[places]
        order = numpy.lexsort((places, -numpy.nan_to_num(score, nan=-numpy.inf), image))
        _, first = numpy.unique(image[order], return_index=True)
        places, score = places[order][first], score[order][first]  # the best text of each image
        rows = image[order][first]
        name = f"{IMAGE}{SHA256 if rule.within is None else PHASH}"
        values = block.column(name).take(places)
        ids = repeats.hashes(values) if rule.within is None else repeats.perceptual(values)
    else:
        ids = repeats.hashes(block.column("text").take(places))
    position = (block.number << repeats.BLOCK_BITS) + rows.astype(numpy.int64)
    repeats.write_candidates(path, ids, score, position)


def _all_for_rule(plan: Plan, turn: Pass, path: Path) -> None:
    assert turn.rule is not None
    rule, where = plan.rules[turn.rule], f"rules[{turn.rule}]"
    files = [partial(plan, turn, number) for number in range(len(plan.pool.blocks))]
    if turn.what == REPEATS:
        run = plan.config.run
        repeats.write_repeats(
            files, path, most=rule.most_per_text, within=rule.within,
            memory=run.memory, threads=run.num_threads,
        )  # fmt: skip
        return
    if turn.what == JUDGED:
        judged = precision.together(precision.load(file) for file in files)
        precision.tell_missing(plan.known, judged.keys, where)
        found = precision.threshold(rule.precision, judged, where, sure=rule.sure)
        path.write_text(json.dumps(found._asdict() | {"judged": found.judged}), "utf-8")
        return
    sums = cuts.total((cuts.load(file) for file in files), where)
    if turn.what == UPPER:
        path.write_text(json.dumps(cuts.bins(sums, rule.fraction)), "utf-8")
        return
    bins = read_json(result(plan, Pass(UPPER, turn.rule)))
    every = cuts.cuts(bins, sums, (cuts.load(file) for file in files), rule.fraction)
    path.write_text(json.dumps({name: cut._asdict() for name, cut in every.items()}), "utf-8")


def _choose(plan: Plan, number: int, path: Path) -> None:
    import pyarrow.parquet as parquet

    block = plan.block(number)
    reduced = reduced_before(plan, len(plan.rules))
    fate, failing = applied(block, plan.rules, reduced)
    chosen = kept_of_images(block, fate == CHOSEN, plan.keep, plan.by)
    table = chosen_table(block, chosen, f"kept: {plan.keep.title}", plan.scores)
    with whole_file(plan.folder.part(number)) as file:
        parquet.write_table(table, file, compression="zstd")
    found = stats.count(plan, block, fate, failing, chosen, reduced)
    write_json(path, found)


def clean(plan: Plan) -> None:
    """Remove what the passes left for each other."""
    shutil.rmtree(plan.folder.work, ignore_errors=True)
