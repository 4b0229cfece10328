"""Sections about figures: results, training, comparison, effort."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from lavis_lite import registry
from lavis_lite.report.charts import Chart, Line, line_chart
from lavis_lite.report.figures import chief_of, columns_for, figure_of, headline_of, title_of
from lavis_lite.report.page import Headline, Section
from lavis_lite.report.render import side_by_side
from lavis_lite.report.runs import Evaluated, Run
from lavis_lite.report.tables import Change, Column, before_after, figure_table, metric_table

Pair = tuple[Run, Run]  # before, after


def results(runs: Sequence[Run]) -> Section | None:
    """Return a table per metric, with a column per run (and evaluation, if there are several)."""
    by_metric: dict[str, dict[str, Evaluated]] = {}
    for run in runs:
        for evaluated in run.evaluations:
            several = sum(e.metric == evaluated.metric for e in run.evaluations) > 1
            name = f"{run.name}: {evaluated.name}" if several else run.name
            by_metric.setdefault(evaluated.metric, {})[name] = evaluated
    if not by_metric:
        return None
    tables = [
        figure_table(
            columns_for(metric, [key for one in found.values() for key in one.figures]),
            {name: one.figures for name, one in found.items()},
            title_of(metric),
            _of(found),
        )
        for metric, found in by_metric.items()
    ]
    notes = ["The best of several runs is emphasised."] if len(runs) > 1 else []
    missing = {
        f"{key} {reason}."
        for run in runs
        for evaluated in run.evaluations
        for key, reason in evaluated.missing.items()
    }
    note = " ".join([*notes, *sorted(missing)])
    return Section("Results", side_by_side(tables, "tables"), note)


def _of(found: Mapping[str, Evaluated]) -> str:
    """Return how many of what the figures stand for; by run where these differ."""
    counts = {name: one.counted() for name, one in found.items()}
    if len(set(counts.values())) > 1:
        return "; ".join(f"{name}: {count or 'of unknown size'}" for name, count in counts.items())
    return next(iter(counts.values()), "")


def headline(runs: Sequence[Run], pairs: Sequence[Pair] = ()) -> list[Headline]:
    """Return the chief figure of each metric, and what it was before.

    It is that of the first compared pair which has both, as pairs are given in the order of what
    they show; without a pair, of the last run.
    """
    found: dict[str, Headline] = {}
    earlier = {after.name: before for before, after in pairs}
    compared = [after for _, after in pairs]
    for run in [*runs, *reversed(compared)]:
        before = earlier.get(run.name)
        for evaluated in run.evaluations:
            where = [run.name] if len(runs) > 1 else []
            old = _named(before, evaluated.name)
            if before and old:
                where = [f"{before.name} → {run.name}"]
            elif evaluated.metric in found and run in compared:
                continue
            if count := evaluated.counted():
                where.append(count)
            if figure := headline_of(evaluated.metric, evaluated.figures, ", ".join(where)):
                was = figure_of(evaluated.metric, old.figures) if old else ""
                found[evaluated.metric] = dataclasses.replace(figure, before=was)
    return list(found.values())


def curves(runs: Sequence[Run]) -> Section | None:
    """A chart per loss with all runs in it, and one per metric that was measured along the way."""
    trained = [run for run in runs if run.training]
    if not trained:
        return None
    keys = list(dict.fromkeys(key for run in trained for r in run.training for key in r))
    losses = [key for key in keys if key == "loss" or key.startswith("loss_")]
    priors = {key: prior for run in trained for key, prior in _priors(run).items()}
    charts = [
        Chart(
            "total loss" if key == "loss" else f"{key.removeprefix('loss_').upper()} loss",
            [
                Line(run.name, points, colour)
                for colour, run in enumerate(trained)
                if (points := [(r["step"], r[key]) for r in run.training if _number(r.get(key))])
            ],
            guide=(priors[key], f"guessing: {priors[key]:.4f}") if key in priors else None,
        )
        for key in losses
    ] + _progress(trained)
    note = "The values of single steps; where there are many, they stand faintly behind their mean."
    if priors:
        note += " A loss that stays on its dashed line has learnt nothing yet."
    drawn = [line_chart(chart) for chart in charts]
    return Section("Training", side_by_side(drawn, "charts"), note)


def _priors(run: Run) -> dict[str, float]:
    """Return the value of guessing by a loss's record key, if the loss's class gives one."""
    model = getattr(run.config, "model", None)
    losses = (model.args.get("losses") or {}) if model is not None else {}
    found = {}
    for key, spec in losses.items():
        args = {k: v for k, v in spec.items() if k != "name"}
        told = getattr(registry.entry("loss", spec["name"]).result, "prior_of", None)
        if told is not None and (prior := told(**args)) is not None:
            found[f"loss_{key}"] = prior
    return found


def _progress(runs: Sequence[Run]) -> list[Chart]:
    """Charts of figures that were measured at three or more steps."""
    lines: dict[tuple[str, str], list[Line]] = {}
    for colour, run in enumerate(runs):
        for evaluated in run.evaluations:
            key = chief_of(evaluated.metric)
            points = [(float(s), f[key]) for s, f in evaluated.history if key and key in f]
            if key and len(points) >= 3:
                title = (evaluated.name, key)
                lines.setdefault(title, []).append(Line(run.name, points, colour))
    return [Chart(f"{name}: {key}", group, smooth=False) for (name, key), group in lines.items()]


def _number(value: object) -> bool:
    return isinstance(value, int | float)


def stages(runs: Sequence[Run]) -> Section | None:
    """List what each run did and how long it took."""
    rows = {run.name: _effort(run) for run in runs}
    columns = [
        Column("steps", "steps", digits=0, better=0),
        Column("seconds", "time", digits=0, better=0, unit="s"),
        Column("speed", "speed", digits=0, better=0, unit="samples/s"),
        Column("first", "first", "loss", digits=3, better=0),
        Column("last", "last", "loss", digits=3, better=0),
    ]
    columns = [c for c in columns if any(row.get(c.key) is not None for row in rows.values())]
    return Section("Runs", metric_table(columns, rows)) if columns else None


def _effort(run: Run) -> dict[str, float | None]:
    losses = [r["loss"] for r in run.training if _number(r.get("loss"))]
    speeds = [r["samples_per_second"] for r in run.training if _number(r.get("samples_per_second"))]
    return {
        "steps": run.training[-1]["step"] if run.training else None,
        "seconds": run.summary.get("seconds"),
        "speed": sorted(speeds)[len(speeds) // 2] if speeds else None,
        "first": losses[0] if losses else None,
        "last": losses[-1] if losses else None,
    }


def comparison(pairs: Sequence[Pair]) -> Section | None:
    """Figures that two runs have in common, side by side, for each pair of runs."""
    tables = [
        before_after(
            _changes(old, evaluated),
            before.name,
            after.name,
            title_of(evaluated.metric),
            _of({before.name: old, after.name: evaluated}),
        )
        for before, after in pairs
        for evaluated in after.evaluations
        if (old := _named(before, evaluated.name))
    ]
    return Section("Before and after", side_by_side(tables, "tables")) if tables else None


def _named(run: Run | None, name: str) -> Evaluated | None:
    return next((e for e in run.evaluations if e.name == name), None) if run else None


def _changes(before: Evaluated, after: Evaluated) -> list[Change]:
    return [
        Change(
            column.name,
            before.figures.get(column.key),
            after.figures.get(column.key),
            column.digits,
            column.better,
            column.unit,
        )
        for column in columns_for(after.metric, after.figures)
    ]
