"""The plan of a selection: its config checked against the records, and the passes that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from lavis_lite.config import to_dict
from lavis_lite.errors import ConfigError
from lavis_lite.io.json_files import read_json
from lavis_lite.projects.blip.capfilt.table import need_pyarrow
from lavis_lite.projects.blip.selection import cuts, moments, precision
from lavis_lite.projects.blip.selection.config import SelectionConfig
from lavis_lite.projects.blip.selection.decide import Block, Reduced
from lavis_lite.projects.blip.selection.layout import SelectionFolder, hash_of
from lavis_lite.projects.blip.selection.pool import Pool, Wanted, open_pool
from lavis_lite.projects.blip.selection.repeats import need_duckdb
from lavis_lite.projects.blip.selection.rules import (
    PHASH,
    SHA256,
    Fusion,
    Keep,
    Rule,
    check_names,
    parse_fusions,
    parse_keep,
    parse_rules,
)
from lavis_lite.runners.settings import flatten, named_in, without_effect

COLUMNS, CHOOSE = "columns", "choose"
UPPER, LOWER, JUDGED, REPEATS = "upper", "lower", "judged", "repeats"
_OF_KIND = {
    "fraction": (UPPER, LOWER),
    "precision": (JUDGED,),
    "duplicates": (REPEATS,),
    "most_per_text": (REPEATS,),
}


class Pass(NamedTuple):
    """A turn through all blocks; ``rule`` is the number of the rule that it is for."""

    what: str
    rule: int | None = None

    @property
    def name(self) -> str:
        """Name of its folder below ``work/``."""
        return self.what if self.rule is None else f"rule{self.rule}-{self.what}"


class Plan(NamedTuple):
    """All that a worker knows of a selection before it reads a record."""

    config: SelectionConfig
    folder: SelectionFolder
    pool: Pool
    rules: list[Rule]
    keep: Keep
    fusions: dict[str, Fusion]
    known: precision.Verdicts
    settings: dict[str, Any]
    fingerprint: str

    @property
    def passes(self) -> list[Pass]:
        """The turns through all blocks, in order."""
        of_rules = [
            Pass(what, number)
            for number, rule in enumerate(self.rules)
            for what in _OF_KIND.get(rule.kind, ())
        ]
        return [Pass(COLUMNS), *of_rules, Pass(CHOOSE)]

    @property
    def scores(self) -> list[str]:
        """Names of all scores, fused ones last."""
        return [*self.pool.scores, *self.fusions]

    @property
    def by(self) -> str | None:
        """The score that tells the best text of an image."""
        return self.keep.by or (self.scores[0] if self.keep.number is not None else None)

    @property
    def wanted(self) -> Wanted:
        """The columns that rules need besides texts and scores."""
        fields = [rule.by for rule in self.rules if rule.by not in (None, "source")]
        if self.config.data.label is not None:
            fields.append(self.config.data.label)
        images = [
            SHA256 if rule.within is None else PHASH
            for rule in self.rules
            if rule.duplicates == "images"
        ]
        return Wanted(tuple(dict.fromkeys(filter(None, fields))), tuple(dict.fromkeys(images)))

    def block(self, number: int) -> Block:
        """A block, once the first pass is done."""
        stats = moments.load(self.folder.reduced(COLUMNS, ".npz"))
        return Block(self.columns(number), number, self.fusions, stats)

    def columns(self, number: int) -> Path:
        """The table of a block."""
        return self.folder.partial(COLUMNS, number, ".arrow")


def make_plan(config: SelectionConfig, block_size: int) -> Plan:
    """Check a selection's config against the records that it is of.

    Raises:
        ConfigError: rules that are none, contradict each other or name no score; all in one report.
        DataError: records that cannot be read.
    """
    need_pyarrow("select")
    rules, keep = parse_rules(config.rules), parse_keep(config.keep)
    fusions = parse_fusions(config.scores)
    if any(REPEATS in _OF_KIND.get(rule.kind, ()) for rule in rules):
        need_duckdb()
    pool = open_pool(config.data.records, config.data.unfinished_ok, block_size)
    check_names(rules, keep, fusions, pool.scores, pool.image_texts)
    known = precision.verdicts_of(config.data, pool.run.folder)
    for number, rule in enumerate(rules):
        if rule.kind == "precision":
            precision.check_known(config.data, known, f"rules[{number}]")
    settings = _settings(config, block_size, pool, known)
    folder = SelectionFolder(config.run.output_dir)
    if folder.path.resolve() == pool.run.folder.resolve():
        raise ConfigError(
            "run.output_dir: this is the folder of the records; a selection has its own"
        )
    return Plan(config, folder, pool, rules, keep, fusions, known, settings, hash_of(settings))


def _settings(
    config: SelectionConfig, block_size: int, pool: Pool, known: precision.Verdicts
) -> dict[str, Any]:
    """All that decides the bytes of a selection, by dotted key."""
    tree = to_dict(config)
    tree["runner"]["block_size"] = block_size
    ignored = (*without_effect(config), "data.records", "data.labels")
    settings = {k: v for k, v in flatten(tree) if not named_in(k, ignored)}
    settings["data.records: their contents"] = pool.identity
    settings["labels"] = hash_of(sorted([*place, fits] for place, fits in known.items()))
    return settings


def reduced_before(plan: Plan, number: int) -> list[Reduced]:
    """Return the findings of the passes for the rules before one."""
    return [_reduced(plan, place) for place in range(number)]


def _reduced(plan: Plan, number: int) -> Reduced:
    rule = plan.rules[number]
    if rule.kind == "fraction":
        found = read_json(plan.folder.reduced(Pass(LOWER, number).name))
        return Reduced(cuts={name: cuts.Cut(**own) for name, own in found.items()})
    if rule.kind == "precision":
        return Reduced(limit=read_json(plan.folder.reduced(Pass(JUDGED, number).name))["limit"])
    if REPEATS in _OF_KIND.get(rule.kind, ()):
        return Reduced(repeats=plan.folder.reduced(Pass(REPEATS, number).name, ".parquet"))
    return Reduced()
