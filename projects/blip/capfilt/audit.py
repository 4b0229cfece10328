"""The runner `audit`: how many texts of a bootstrapped dataset are right, where that is known."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from typing import Any

import torch

from lavis_lite import registry
from lavis_lite.data.counts import Counts
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.projects.blip.capfilt.audit_config import AuditConfig
from lavis_lite.runners.run_folder import RunFolder, write_text

log = logging.getLogger(__name__)


@registry.register("runner", "audit")
class AuditRunner:
    """Reads every text back and compares its facts with those of a true text of its image.

    A text is right when it states exactly the true facts, in whatever words; an accidentally true
    caption of the web counts as right. No model takes part.

    Args:
        config: the run.
    """

    def __init__(self, config: AuditConfig) -> None:
        self.config = config

    def run(self) -> dict[str, Any]:
        """Judge all texts; see `shares` for the ``metrics``.

        Raises:
            ConfigError: the dataset cannot read facts, or lacks a field.
        """
        begin = time.perf_counter()
        folder = RunFolder(self.config.run.output_dir)
        with folder.alone():
            folder.refuse_other_kind(self.config.runner.name)
            dataset = registry.build("dataset", self.config.data.source.spec)
            counts = count(dataset, self.config.data.truth)
            folder.claim(self.config, torch.device("cpu"))
            metrics = shares(counts)
            seconds = round(time.perf_counter() - begin, 1)
            counted = {"texts": Counts(counts.total(), counts.total()).as_dict()}
            record = {"step": 0, "evaluate": "audit", **metrics, "seconds": seconds}
            record["counts"] = counted
            write_text(folder.metrics, json.dumps(record) + "\n")
            summary = {"step": 0, "seconds": seconds, "metrics": metrics}
            summary["counts"] = {"audit": counted}
            folder.finish(summary)
        log.info("complete: %s of %d texts", metrics, counts.total())
        return summary


def count(dataset: Any, truth: str) -> Counter[tuple[str, bool, bool]]:
    """Count the texts of each (origin, kept, right).

    Args:
        dataset: rows as AuditData describes them.
        truth: the field with a true text.

    Raises:
        ConfigError: it is not such a dataset.
    """
    facts_of = getattr(dataset, "facts", None)
    if facts_of is None:
        raise ConfigError(f"data.source: {dataset.name} cannot tell the facts of a text")
    counts: Counter[tuple[str, bool, bool]] = Counter()
    for index in range(len(dataset)):
        row = dataset.annotation(index)
        for field in (truth, "origin", "kept"):
            if field not in row:
                raise ConfigError(
                    f"data: the rows of {dataset.name} have no field {field!r}."
                    f"{suggest(field, row)} Fields: {', '.join(sorted(row))}"
                )
        said = facts_of(row["text_input"])
        right = said is not None and said == facts_of(row[truth])
        counts[row["origin"], row["kept"], right] += 1
    return counts


def shares(counts: Counter[tuple[str, bool, bool]]) -> dict[str, float]:
    """Shares in % for each origin, and for ``all`` texts together.

    ``ORIGIN_right``: of its texts those that are right. ``ORIGIN_precision``: of the kept ones.
    ``ORIGIN_recall``: of the right ones those that are kept. ``ORIGIN_kept`` is a number.
    """
    percentages: dict[str, float] = {}
    for origin in [*sorted({origin for origin, _, _ in counts}), "all"]:
        here = Counter[tuple[bool, bool]]()
        for (one, is_kept, is_right), number in counts.items():
            if origin in (one, "all"):
                here[is_kept, is_right] += number
        right = here[True, True] + here[False, True]
        kept = here[True, True] + here[True, False]
        for name, part, whole in (
            ("right", right, here.total()),
            ("precision", here[True, True], kept),
            ("recall", here[True, True], right),
        ):
            if whole:
                percentages[f"{origin}_{name}"] = round(100 * part / whole, 3)
        percentages[f"{origin}_kept"] = kept
    return percentages
