"""The cut that was chosen, as the config of a selection."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lavis_lite.errors import DataError
from lavis_lite.io.files import whole_file
from lavis_lite.projects.blip.capfilt.review.index import OF


def write_cut(folder: Path, score: str, limit: float, of: str) -> Path:
    """Write the config of a selection with one rule into the run's folder, a file for each cut.

    Args:
        folder: output folder of the run.
        score: name of a scorer.
        limit: texts whose score is at least this are kept.
        of: ``all``, ``web`` or ``synthetic``: the texts that the rule is for.

    Raises:
        DataError: rules are not for such texts, or the file cannot be written.
    """
    if of not in OF:
        raise DataError(f"a rule is for texts that are one of {list(OF)}, not for those of {of!r}")
    folder = folder.resolve()
    name = re.sub(r"[^\w.-]+", "_", f"select_{score}_{limit:.6g}_{of}")
    path = folder / f"{name}.yaml"
    rule = {"score": score, "min": float(f"{limit:.6g}"), "of": of}
    output = folder.with_name(f"{folder.name}_{name}")
    text = (
        "# Chosen with `lavis-lite review`; every key can be changed.\n"
        "_base_: blip/select.yaml\n"
        f"data: {{records: {json.dumps(str(folder))}, label: null, right: []}}\n"
        f"rules:\n  - {json.dumps(rule)}\n"
        f"run: {{output_dir: {json.dumps(str(output))}}}\n"
    )
    try:
        with whole_file(path) as temporary:
            temporary.write_text(text, "utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from None
    return path
