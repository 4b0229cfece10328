"""Projects: models and everything that only they need. The core knows none of them."""

from pathlib import Path

# In a checkout the projects stand beside the package; in a wheel they are inside it.
_root = Path(__file__).resolve().parents[2]
if (_root / "projects").is_dir() and (_root / "setup.py").is_file():
    __path__.append(str(_root / "projects"))
