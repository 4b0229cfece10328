"""lavis_lite: a vision-language model zoo in which every part is swappable.

    from lavis_lite import load_model_and_preprocess
    model, vis_processors, txt_processors = load_model_and_preprocess("blip_caption")

Importing this package imports no torch; a public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavis_lite import registry as registry
    from lavis_lite.data import dataset_zoo as dataset_zoo
    from lavis_lite.data import load_dataset as load_dataset
    from lavis_lite.data import load_processor as load_processor
    from lavis_lite.models.pipelines import pipeline as pipeline
    from lavis_lite.models.zoo import create_model as create_model
    from lavis_lite.models.zoo import load_model as load_model
    from lavis_lite.models.zoo import load_model_and_preprocess as load_model_and_preprocess
    from lavis_lite.models.zoo import load_preprocess as load_preprocess
    from lavis_lite.models.zoo import model_zoo as model_zoo
    from lavis_lite.registry.cards import list_models as list_models

__version__ = "0.1.0"

_PUBLIC = {
    "create_model": "lavis_lite.models.zoo",
    "dataset_zoo": "lavis_lite.data",
    "list_models": "lavis_lite.registry.cards",
    "load_dataset": "lavis_lite.data",
    "load_model": "lavis_lite.models.zoo",
    "load_model_and_preprocess": "lavis_lite.models.zoo",
    "load_preprocess": "lavis_lite.models.zoo",
    "load_processor": "lavis_lite.data",
    "model_zoo": "lavis_lite.models.zoo",
    "pipeline": "lavis_lite.models.pipelines",
}

__all__ = [*sorted(_PUBLIC), "registry"]


def __getattr__(name: str) -> Any:
    if name == "registry":
        return importlib.import_module("lavis_lite.registry")
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'lavis_lite' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Documented import paths of earlier versions -> where their names are now. They go with 0.3.
_MOVED = {
    "capabilities": ["models"],
    "capabilities.gradcam": ["models.gradcam"],
    "data.captions": ["data.text_processors"],
    "data.transforms": ["data.image_processors"],
    "generation": ["modules.generation"],
    "interfaces": ["modules.interfaces", "modules.output"],
    "model": ["models.base"],
    "model_folder": ["models.folder"],
    "overlay": ["models.heatmap"],
    "text": ["modules.text"],
    "text.hf_tokenizer": ["modules.text.hf_tokenizer", "modules.text.load_tokenizer"],
    "text.med": ["modules.med.model", "modules.med.builder"],
    "text.pooling": ["modules.text.pooling"],
    "text.tokenizer": [
        "modules.text.load_tokenizer",
        "modules.text.text_batch",
        "modules.text.wordpiece",
    ],
    "vision": ["modules.vision"],
    "weights": ["checkpoint.weights"],
    "zoo": ["models.zoo", "registry.cards"],
}
# LAVIS's places -> what to use here.
_LAVIS = {
    "common": "`lavis_lite.registry` is the registry, `lavis_lite.models.gradcam` has Grad-CAM",
    "datasets": "`lavis_lite.load_dataset` loads datasets, `lavis_lite.data` has their classes",
    "processors": "`lavis_lite.load_processor` makes one; they stand in "
    "`lavis_lite.data.image_processors` and `lavis_lite.data.text_processors`",
    "tasks": "a config says what is done: `lavis-lite list --kind runner`, `lavis-lite list "
    "--kind metric`",
}


class _MovedModules:
    """Imports of modules that stood elsewhere, here or in LAVIS: handed on, or told where to go.

    It is a finder and a loader, but not of ``importlib.abc``, whose import takes 20 ms.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, inner = name.partition(".")
        if package != __name__ or not (inner in _MOVED or inner.partition(".")[0] in _LAVIS):
            return None
        is_package = any(moved.startswith(f"{inner}.") for moved in _MOVED)
        return importlib.machinery.ModuleSpec(name, self, is_package=is_package)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Leave the making of the module to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and let the module hand on the names of those that took its place.

        Raises:
            ImportError: a place of LAVIS's; the message says what to use instead.
        """
        inner = module.__name__.partition(".")[2]
        if (place := inner.partition(".")[0]) in _LAVIS:
            raise ImportError(f"lavis_lite has no {inner!r}, where LAVIS has one: {_LAVIS[place]}")
        places = [f"{__name__}.{place}" for place in _MOVED[inner]]
        text = f"{module.__name__} is {' and '.join(places)} now; the old name goes with 0.3"
        warnings.warn(text, DeprecationWarning, stacklevel=2)

        def handed_on(name: str) -> Any:
            for place in places:
                if hasattr(found := importlib.import_module(place), name):
                    return getattr(found, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = handed_on  # type: ignore[method-assign]


sys.meta_path.append(_MovedModules())
