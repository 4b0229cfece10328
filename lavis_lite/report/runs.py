"""The files of a run's output folder, and the images that the run was evaluated on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite import config as configs
from lavis_lite import registry
from lavis_lite.data.counts import Counts
from lavis_lite.data.files.images import decode
from lavis_lite.registry.component import Component
from lavis_lite.report.figures import count_of

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)
Record = dict[str, Any]
_NO_FIGURES = ("step", "evaluate", "seconds", "counts")


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a run.

    Attributes:
        name: of the evaluation, unique in its run.
        metric: the registered metric.
        history: (step, figures), oldest first.
        predictions: the file of its rows, which may be missing.
        data: the dataset's component; None where it is not known.
        missing: figures that the latest evaluation could not compute, as "n/a: " and the reason.
        counts: how many samples the latest figures are of, by what they are.
    """

    name: str
    metric: str
    history: list[tuple[int, dict[str, float]]]
    predictions: Path
    data: Component | None = None
    missing: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """The latest figures."""
        return self.history[-1][1]

    def counted(self) -> str:
        """Return how many of what the figures stand for: ``300 images``; empty if unknown."""
        if self.counts:  # records of before there were any have none
            return " and ".join(count.spell(unit) for unit, count in self.counts.items())
        return count_of(self.metric, self.rows())

    def rows(self) -> list[Record]:
        """The predictions of the latest evaluation."""
        return list(_read_jsonl(self.predictions))


@dataclass(frozen=True)
class Run:
    """A finished or unfinished run.

    Attributes:
        name: how it is called in the report.
        folder: where it was written.
        config: as the runner had it; None where it cannot be read (any more).
        training: a record per logged step.
        evaluations: in the order in which they first came.
        start: the record of its last start (command, versions, device).
        summary: what it returned; empty when it has not finished.
    """

    name: str
    folder: Path
    config: Any = None
    training: list[Record] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    start: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)


def read_run(name: str, folder: str | os.PathLike) -> Run:
    """Read a run's folder; whatever is missing there is missing in the result."""
    folder = Path(folder)
    config = _read_config(folder / "config.yaml")
    records = list(_read_jsonl(folder / "metrics.jsonl"))
    return Run(
        name,
        folder,
        config=config,
        training=[r for r in records if "evaluate" not in r and "step" in r],
        evaluations=_evaluations(records, config, folder),
        start=_read_json(folder / "run.json"),
        summary=_read_json(folder / "complete.json"),
    )


def _evaluations(records: list[Record], config: object, folder: Path) -> list[Evaluated]:
    components = _evaluators(config)
    histories: dict[str, list[tuple[int, dict[str, float]]]] = {}
    missing: dict[str, dict[str, str]] = {}
    counts: dict[str, dict[str, Counts]] = {}
    for record in records:
        if "evaluate" in record:
            figures = {
                key: value
                for key, value in record.items()
                if key not in _NO_FIGURES and isinstance(value, int | float)
            }
            histories.setdefault(record["evaluate"], []).append((record.get("step", 0), figures))
            counts[record["evaluate"]] = {
                unit: Counts(**found) for unit, found in record.get("counts", {}).items()
            }
            missing[record["evaluate"]] = {
                key: value for key, value in record.items() if str(value).startswith("n/a: ")
            }
    found = []
    for name, history in histories.items():
        component = components.get(name)
        path = folder / "predictions" / f"{name}.jsonl"
        metric = component.name if component else name
        data = component.data if component else None
        found.append(Evaluated(name, metric, history, path, data, missing[name], counts[name]))
    return found


def _evaluators(config: object) -> dict[str, Any]:
    from lavis_lite.config.evaluators import evaluator_names

    evaluators = getattr(config, "evaluate", None) or []
    return dict(zip(evaluator_names(evaluators), evaluators, strict=True))


def _read_config(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return configs.load(path)
    except (ValueError, LookupError, OSError) as error:
        log.warning("%s cannot be read; the report has less in it: %s", path, error)
        return None


def _read_json(path: Path) -> Record:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_jsonl(path: Path) -> Iterator[Record]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            log.warning("%s: an unreadable line is left out: %.60r", path, line)


class Pictures:
    """Images of the datasets that runs were evaluated on, rebuilt from their configs."""

    def __init__(self) -> None:
        self._datasets: dict[str, Any] = {}

    def image(self, data: Component | None, index: int | None) -> Image | None:
        """Row ``index`` of the dataset as an RGB image; None where it cannot be had."""
        dataset = self._dataset(data) if data is not None and index is not None else None
        if dataset is None:
            return None
        try:
            return decode(dataset[index]["image"])
        except (ValueError, LookupError, OSError) as error:
            log.warning("no image for row %s in the report: %s", index, error)
            return None

    def _dataset(self, data: Component) -> Any:
        key = repr(data.spec)
        if key not in self._datasets:
            try:
                self._datasets[key] = registry.build("dataset", data.spec)
            except Exception as error:  # a report without images is better than none
                log.warning("the report has no images of %r: %s", data.name, error)
                self._datasets[key] = None
        return self._datasets[key]
