"""The plan of a sweep's runs, from arms and seeds; equal work of several arms is one run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lavis_lite import config as configs
from lavis_lite import registry
from lavis_lite.config.files import find
from lavis_lite.config.schema import PipelineConfig, Stage
from lavis_lite.errors import ConfigError, UnknownName, suggest
from lavis_lite.runners.run_folder import output_folder
from lavis_lite.runners.settings import fingerprint, flatten, settings, without_effect
from lavis_lite.runners.sweep.config import SweepConfig

SINGLE = "run"  # the stage of a config that is no pipeline
Cell = tuple[str, int]  # arm, seed


class Job(NamedTuple):
    """A run. ``ident`` is a hash of all that decides what comes out, its inputs included.

    ``label`` says whose run it is: ``arm large, seed 0``, and how many others share it.
    """

    ident: str
    stage: str
    config: Any
    folder: Path
    inputs: tuple[str, ...]
    label: str = ""


class Plan(NamedTuple):
    """All runs in an order in which each comes after its inputs, and whose they are.

    ``cells`` maps arm and seed to stage -> ident; ``is_pipeline`` says whether there are stages.
    """

    jobs: dict[str, Job]
    cells: dict[Cell, dict[str, str]]
    is_pipeline: bool


class Planner:
    """Expands a sweep.

    Args:
        config: of the sweep.
    """

    def __init__(self, config: SweepConfig) -> None:
        self.config = config
        self.folder = output_folder(config.run.output_dir) / "runs"
        self.jobs: dict[str, Job] = {}
        self._loaded: dict[str, Any] = {}

    def plan(self) -> Plan:
        """The runs of all arms and seeds.

        Raises:
            ConfigError: problems of all arms in one report.
        """
        config = self.config
        base = configs.load(config.cfg)
        is_pipeline = isinstance(base, PipelineConfig)
        cells: dict[Cell, dict[str, str]] = {}
        if problems := [*_unknown_values(config, base), *self._unknown_results(base)]:
            raise ConfigError("\n".join(problems))
        wrong: dict[str, dict[str, None]] = {}  # problem -> arms, in order
        for name, arm in config.variants.items():
            for seed in config.seeds if arm.seeds is None else arm.seeds:
                try:
                    stages = self._stages({**arm.set, config.seed_key: seed})
                    cells[name, seed] = self._add(stages)
                except (ConfigError, UnknownName) as error:
                    for line in str(error).splitlines():
                        wrong.setdefault(line, {})[name] = None
        if wrong:
            raise ConfigError("\n".join(_by_arm(wrong)))
        _refuse_equal(cells)
        for ident, label in _labels(cells).items():
            self.jobs[ident] = self.jobs[ident]._replace(label=label)
        return Plan(self.jobs, cells, is_pipeline)

    def _unknown_results(self, base: object) -> Iterator[str]:
        known = list(base.stages) if isinstance(base, PipelineConfig) else []
        for key in ("results", "also"):
            for stage in getattr(self.config, key):
                if stage not in known:
                    listed = ", ".join(known) or "none, cfg is no pipeline"
                    yield f"{key}: no stage {stage!r}.{suggest(stage, known)} Stages: {listed}"

    def _stages(self, values: dict[str, Any]) -> dict[str, Stage]:
        """The stages of one arm and seed that its results need, in order."""
        config = self.config
        values = {**values, "run.output_dir": str(self.folder)}
        whole = configs.load(config.cfg, values=values)
        if not isinstance(whole, PipelineConfig):
            return {SINGLE: Stage(config.cfg, values)}
        names = list(whole.stages)
        inputs = {n: self._inputs(stage.set, names) for n, stage in whole.stages.items()}
        for name, others in inputs.items():
            if late := [n for n in others if names.index(n) >= names.index(name)]:
                raise ConfigError(f"stages.{name}: builds on {late[0]!r}, which comes later")
        needed = set(config.results or whole.stages)
        for name in reversed(whole.stages):
            if name in needed:
                needed |= set(inputs[name])
        needed |= {name for name in config.also if set(inputs[name]) <= needed}
        return {name: stage for name, stage in whole.stages.items() if name in needed}

    def _inputs(self, values: Mapping[str, Any], names: list[str]) -> list[str]:
        """Return the names of the stages whose folders the values mention."""
        texts = [str(value) for _, value in flatten(dict(values))]
        return [n for n in names if any(_inside(text, str(self.folder / n)) for text in texts)]

    def _add(self, stages: dict[str, Stage]) -> dict[str, str]:
        """Make the jobs of one arm and seed, as far as they are new; stage -> ident."""
        idents: dict[str, str] = {}
        for name, stage in stages.items():
            inputs = self._inputs(stage.set, list(idents))
            ids = tuple(idents[i] for i in inputs)
            folders = {str(self.folder / i): str(self.jobs[idents[i]].folder) for i in inputs}
            anonymous = {str(self.jobs[i].folder): i for i in ids}
            values = {**_moved(stage.set, folders), "run.output_dir": str(self.folder / "new")}
            try:
                config = self._load(stage.cfg, values)
            except (ConfigError, UnknownName) as error:
                where = "" if name == SINGLE else f"stages.{name}: "
                lines = str(error).splitlines()
                raise ConfigError("\n".join(where + line for line in lines)) from None
            # Inputs stand for what they hold, wherever that is.
            ident = fingerprint(
                _moved(settings(config), anonymous),
                evaluation=True,
                ignored=without_effect(config),
            )
            if ident not in self.jobs:
                folder = next(self.folder.glob(f"*-{ident}"), self.folder / f"{name}-{ident}")
                run = dataclasses.replace(config.run, output_dir=str(folder))
                config = dataclasses.replace(config, run=run)
                self.jobs[ident] = Job(ident, name, config, folder, ids)
            idents[name] = ident
        return idents

    def _load(self, cfg: str, values: dict[str, Any]) -> Any:
        """A stage's config, loaded and checked; equal ones once."""
        key = json.dumps([cfg, values], sort_keys=True, default=str)
        if key not in self._loaded:
            config = configs.load_and_bind(cfg, values=values)
            registry.build("runner", config.runner.spec, config=config)  # it checks more
            self._loaded[key] = config
        return self._loaded[key]


def _labels(cells: Mapping[Cell, Mapping[str, str]]) -> dict[str, str]:
    """For which arm and seed a run is, and for how many others."""
    owners: dict[str, list[Cell]] = {}
    for cell, stages in cells.items():
        for ident in stages.values():
            owners.setdefault(ident, []).append(cell)
    labels = {}
    for ident, ((arm, seed), *others) in owners.items():
        labels[ident] = f"arm {arm}, seed {seed}" + (f" and {len(others)} more" if others else "")
    return labels


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _moved(tree: object, folders: Mapping[str, str]) -> Any:
    """The tree with paths in ``folders``, or inside one of them, replaced."""
    if isinstance(tree, dict):
        return {key: _moved(value, folders) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_moved(value, folders) for value in tree]
    for old, new in folders.items():
        if isinstance(tree, str) and _inside(tree, old):
            return new + tree[len(old) :]
    return tree


def _unknown_values(config: SweepConfig, base: object) -> Iterator[str]:
    """A value that nothing reads would go unnoticed, where any other wrong key is refused."""
    known = list(getattr(base, "values", {}))
    named = [("seed_key", config.seed_key)]
    named += [(f"arms.{name}.set", key) for name, arm in config.variants.items() for key in arm.set]
    for where, key in named:
        first, _, value = key.partition(".")
        value = value.split(".")[0].split("[")[0]
        if first == "values" and value not in known:
            listed = ", ".join(known) or "none"
            file = find(config.cfg).name
            yield (
                f"{where}: {file} has no value {value!r}.{suggest(value, known)} Values: {listed}"
            )


def _by_arm(wrong: Mapping[str, Mapping[str, None]]) -> Iterator[str]:
    """Each problem once, with the first arm that has it: what a grid varies, many arms share."""
    for problem, (first, *others) in wrong.items():
        more = f" (and {len(others)} more arms)" if others else ""
        yield f"arms.{first}: {problem}{more}"


def _refuse_equal(cells: Mapping[Cell, dict[str, str]]) -> None:
    """Refuse two arms with the same runs: one of them must be a mistake."""
    seen: dict[tuple[int, str], str] = {}
    problems = []
    for (arm, seed), stages in cells.items():
        first = seen.setdefault((seed, json.dumps(stages, sort_keys=True)), arm)
        if first != arm:
            problems.append(f"arms.{arm}: the same runs as arm {first!r}")
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
