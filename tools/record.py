"""A finished run or pipeline as one JSON file, to be kept: what ran, where, and what came out.

python -m tools.record output/quickstart benchmarks/quickstart.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_lite.errors import DataError


def record(folder: Path) -> dict[str, Any]:
    """A run's command, start, environment, settings, steps, seconds and figures.

    Raises:
        DataError: the folder holds no finished run.
    """
    files = [folder / "run.json", folder / "complete.json"]
    for file in files:
        if not file.is_file():
            raise DataError(f"{folder} holds no finished run: {file.name} is missing")
    begun, done = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    kept = ("command", "started", "environment", "device", "processes", "settings")
    return {key: begun[key] for key in kept if key in begun} | done


def record_all(folder: Path) -> dict[str, Any]:
    """The record of a run; of a pipeline, that of each stage by name."""
    plan = folder / "pipeline.json"
    if not plan.is_file():
        return record(folder)
    stages = json.loads(plan.read_text(encoding="utf-8"))
    return {stage: record(folder / stage) for stage in stages}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the record of an output folder to a file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="output folder of a run or pipeline")
    parser.add_argument("file", type=Path, help="the JSON file to write")
    given = parser.parse_args(arguments)
    text = json.dumps(record_all(given.folder), indent=1) + "\n"
    given.file.parent.mkdir(parents=True, exist_ok=True)
    given.file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
