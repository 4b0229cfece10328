"""Sphinx configuration: `make docs`, or `python -m sphinx -W docs docs/_build/html`."""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import lavis_lite  # noqa: E402

project = "lavis_lite"
author = "The lavis_lite authors"
copyright = author
version = release = lavis_lite.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "config_reference",
    "dataset_cards",
    "fault_table",
    "import_drawing",
    "recorded_benchmarks",
    "recorded_runs",
    "recorded_sweeps",
    "registry_tables",
    "report_charts",
    "scenes_gallery",
    "weight_cards",
]
if importlib.util.find_spec("myst_parser"):
    extensions.append("myst_parser")

exclude_patterns = ["_build"]
default_role = "literal"
nitpicky = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo" if importlib.util.find_spec("furo") else "alabaster"
html_title = f"lavis_lite {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sphinx = False
html_copy_source = False
