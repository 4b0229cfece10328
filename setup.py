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

EXTRAS = {
    "data": ["pyarrow"],
    "ray": ["ray[data]>=2.50"],
    "metrics": ["pycocoevalcap"],
    "log": ["tensorboard"],
    "peft": ["peft"],
    "siglip": ["sentencepiece", "protobuf"],  # what its published vocabulary is read with
    # setuptools: the packaging test builds a wheel without fetching anything.
    "test": ["pytest>=8", "pytest-xdist", "hypothesis", "pyarrow", "peft", "setuptools>=77"],
    "docs": ["sphinx>=8", "furo", "myst-parser"],
}
EXTRAS["dev"] = [*EXTRAS["test"], *EXTRAS["docs"], "ruff", "mypy"]


def version() -> str:
    """The version that `lavis_lite/__init__.py` states, read without importing it."""
    text = (ROOT / "lavis_lite" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    assert found, "lavis_lite/__init__.py states no __version__"
    return found[1]


setup(
    name="lavis_lite",
    version=version(),
    description="A pluggable vision-language model zoo with BLIP and its CapFilt inside",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
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
    # A floor stands only where one was found to be needed, a cap only where the next major version
    # is known to break us. torchvision pins its own torch: a bound here could only conflict.
    install_requires=[
        "torch>=2.8",
        "torchvision",
        "timm>=1.0.17",
        "transformers>=5,<6",
        "tokenizers",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.10",
        "omegaconf>=2.4",
        "safetensors>=0.4.5",
        "huggingface_hub",
        "httpx2>=2,<3",
        "pillow",
        "numpy",
        "tqdm",
        "matplotlib",
        "webdataset",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["lavis-lite = lavis_lite.cli:main"]},
    zip_safe=False,
)
