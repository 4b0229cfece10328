"""How a soak is written down."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def record_soak(
    file: Path, soak: Callable[[Path], dict[str, Any]], processes: int, settings: dict[str, Any]
) -> None:
    """Soak in a folder that goes afterwards; write and print the figures, the command and where.

    Args:
        file: a JSON file.
        soak: takes the folder, returns figures.
        processes: that work side by side in it.
        settings: of the run.
    """
    from lavis_lite.report.environment import environment

    record = {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "environment": environment(),
        "device": "cpu",
        "processes": processes,
        "settings": settings,
    }
    with tempfile.TemporaryDirectory() as folder:
        record |= soak(Path(folder))
    text = json.dumps(record, indent=1)
    file.write_text(f"{text}\n", encoding="utf-8")
    print(text)
