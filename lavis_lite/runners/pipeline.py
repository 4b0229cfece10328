"""The runner `pipeline`: stages in order, each a run of its own in a folder of its own."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

from lavis_lite import config as configs
from lavis_lite import distributed, registry, runners
from lavis_lite.config.schema import PipelineConfig
from lavis_lite.errors import ConfigError, UnknownName, suggest
from lavis_lite.report import report_pipeline
from lavis_lite.runners.run_folder import (
    RunFolder,
    naming_the_folder,
    output_folder,
    read_json,
    write_json,
)
from lavis_lite.runners.settings import (
    Settings,
    at_default,
    differences,
    fingerprint,
    flatten,
    settings,
    without_effect,
)

log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """A stage with its config loaded and checked.

    ``inputs`` are the stages that it builds on, each with its fingerprint; ``fingerprint`` covers
    the settings of the stage and of all that it builds on.
    """

    name: str
    cfg: str
    config: Any
    folder: RunFolder
    settings: Settings
    inputs: dict[str, str]
    fingerprint: str

    @property
    def record(self) -> dict[str, Any]:
        """Return the JSON object that is stored for a stage that has begun."""
        return {"settings": self.settings, "inputs": self.inputs}

    def differs_from(self, before: dict[str, Any], *, evaluation: bool = True) -> list[str]:
        """List the differences from a ``record``, see `differences`."""
        return differences(
            before["settings"],
            self.settings,
            evaluation=evaluation,
            unused=set(at_default(self.config)),
            ignored=without_effect(self.config),
        )


@registry.register("runner", "pipeline")
class PipelineRunner:
    """Runs stages in order. Started again, it skips what is complete and resumes what is begun."""

    def __init__(self, config: PipelineConfig) -> None:
        if not config.stages:
            raise ConfigError("stages: name at least one")
        _check_pairs(config)
        self.config = config
        self.path = output_folder(config.run.output_dir)
        self.history = self.path / "pipeline.json"  # stage name -> its record

    def run(self) -> dict[str, Any]:
        """Check all stages, run those that are not complete, write the report.

        Returns:
            ``stages``: the summary of each; ``report``: its path, or None.

        Raises:
            ConfigError: problems of all stages' configs; or stages that ran with other settings.
        """
        begin = time.perf_counter()
        plans = self._plan()
        self._refuse_changed(plans)
        with naming_the_folder(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        summaries = {
            plan.name: self._run_stage(plan, f"[{number}/{len(plans)}] {plan.name}")
            for number, plan in enumerate(plans, 1)
        }
        log.info("all %d stages are complete after %s", len(plans), _duration(begin))
        return {"stages": summaries, "report": self._report(plans)}

    def _plan(self) -> list[Plan]:
        plans: list[Plan] = []
        problems: list[str] = []
        for name, stage in self.config.stages.items():
            folder = RunFolder(self.path / name)
            try:
                values = {**stage.set, "run.output_dir": str(folder.path)}
                config = configs.load_and_bind(stage.cfg, values=values)
                registry.build("runner", config.runner.spec, config=config)  # it checks more
            except (ConfigError, UnknownName) as error:
                problems += [f"stages.{name}: {line}" for line in str(error).splitlines()]
                continue
            inputs = {p.name: p.fingerprint for p in plans if mentions(config, p.folder.path)}
            stage_settings = settings(config)
            ident = fingerprint(stage_settings, *inputs.values(), ignored=without_effect(config))
            plans.append(Plan(name, stage.cfg, config, folder, stage_settings, inputs, ident))
        if problems:
            raise ConfigError("\n".join(problems))
        return plans

    def _refuse_changed(self, plans: list[Plan]) -> None:
        history = read_json(self.history)
        lines: list[str] = []
        folders: list[str] = []
        same: dict[str, str] = {}  # fingerprints, as recorded, of stages that are as they were
        for plan in plans:
            before = history.get(plan.name)
            changed = _changes(before, plan, same) if before else []
            if before and not changed:
                same[plan.name] = fingerprint(
                    before["settings"],
                    *before["inputs"].values(),
                    ignored=without_effect(plan.config),
                )
            if changed and plan.folder.path.exists():
                lines += [f"  stage {plan.name!r}:", *(f"    {line}" for line in changed)]
                folders.append(str(plan.folder.path))
        if folders:
            raise ConfigError(
                f"run.output_dir: {self.path} holds stages that ran with other settings:\n"
                + "\n".join(lines)
                + f"\nDelete {' and '.join(folders)} to run them anew, or choose another "
                "run.output_dir"
            )

    def _run_stage(self, plan: Plan, label: str) -> dict[str, Any]:
        before, done = read_json(self.history).get(plan.name), plan.folder.summary()
        where = plan.folder.path
        if done is not None and before and not plan.differs_from(before):
            log.info("%s: complete, skipped; its results are in %s", label, where)
            return done
        how = "continues" if before and where.exists() else "begins"
        log.info("%s: %s, as in %s; its results go to %s", label, how, plan.cfg, where)
        begin = time.perf_counter()
        if distributed.is_main():
            write_json(self.history, {**read_json(self.history), plan.name: plan.record})
        summary = runners.run(plan.config)
        log.info("%s: done after %s", label, _duration(begin))
        return summary

    def _report(self, plans: list[Plan]) -> str | None:
        run = self.config.run
        if not run.report or not distributed.is_main():
            return None
        folders = {plan.name: plan.folder.path for plan in plans}
        pairs = [(before, after) for before, after in run.compare]
        report = report_pipeline(
            self.path, folders, run.title, name=run.report, compare=pairs, about=run.about
        )
        log.info("the report: %s", report)
        return report


def _check_pairs(config: PipelineConfig) -> None:
    problems = []
    for number, pair in enumerate(config.run.compare):
        where = f"run.compare[{number}]"
        if len(pair) != 2:
            problems.append(f"{where}: {pair} has {len(pair)} stages; name two, [before, after]")
        problems += [
            f"{where}: no stage is called {name!r}.{suggest(name, config.stages)}"
            for name in pair
            if name not in config.stages
        ]
    if problems:
        raise ConfigError("\n".join(problems))


def mentions(config: object, folder: Path) -> bool:
    """Tell whether any value of a config is ``folder`` or a path inside it."""
    values = (value for _, value in flatten(configs.to_dict(config)) if isinstance(value, str))
    return any(value == str(folder) or value.startswith(f"{folder}/") for value in values)


def _changes(before: dict[str, Any], plan: Plan, same: dict[str, str]) -> list[str]:
    """List the reasons why a begun stage is not the same any more."""
    lines = plan.differs_from(before, evaluation=False)
    for name, ident in plan.inputs.items():
        # A later release has more settings, and so other fingerprints of what has not changed.
        if before["inputs"].get(name) not in (ident, same.get(name, ident)):
            lines.append(f"it builds on stage {name!r}, which has changed")
    return lines


def _duration(begin: float) -> str:
    minutes, seconds = divmod(round(time.perf_counter() - begin), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
