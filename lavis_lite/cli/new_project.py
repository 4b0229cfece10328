"""``lavis-lite new project NAME``: a package of one's own, complete and small, to start from."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from lavis_lite.errors import ConfigError

TEMPLATES = Path(__file__).with_name("templates") / "project"
PLACE = "NAME"  # stands for the package's name, in file names and in texts
FOLDER = "package"  # stands for the folder of its modules
SUFFIX = ".txt"  # of templates, so that nobody takes them for code


def write_project(name: str, into: Path) -> list[Path]:
    """Write the package ``name`` into the folder ``into/name``.

    Args:
        name: of the package, and first part of every name that it registers.
        into: the folder around it.

    Returns:
        The files written.

    Raises:
        ConfigError: no name for a package, one that is taken, or a folder that is there already.
    """
    if problem := name_problem(name):
        raise ConfigError(f"new project: {problem}")
    root = into / name
    if root.exists():
        raise ConfigError(f"new project: {root} is there already; choose another name or --into")
    written = []
    for template in sorted(TEMPLATES.rglob(f"*{SUFFIX}")):
        parts = template.relative_to(TEMPLATES).with_suffix("").parts
        path = root.joinpath(*(name if p == FOLDER else p.replace(PLACE, name) for p in parts))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = template.read_text(encoding="utf-8").replace(PLACE, name)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"new project: {path}: {error.strerror or error}") from error
        written.append(path)
    return written


def name_problem(name: str) -> str | None:
    """Why a package cannot be called ``name``, with a name that it can have; or None."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").lstrip("0123456789_") or "my"
        near = f"{near}_parts" if keyword.iskeyword(near) else near
        return f"{name!r} is no name for a package (lower case, digits, _): {near!r} would be"
    if importlib.util.find_spec(name) is not None:
        return f"there is a package {name!r} already: 'my_{name}' is free"
    return None
