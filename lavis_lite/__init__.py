"""lavis_lite: a vision-language model zoo in which every part is swappable.

    from lavis_lite import load_model_and_preprocess
    model, vis_processors, txt_processors = load_model_and_preprocess("blip_caption")

Importing this package imports no torch; a public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavis_lite import registry as registry
    from lavis_lite.data import dataset_zoo as dataset_zoo
    from lavis_lite.data import load_dataset as load_dataset
    from lavis_lite.data import load_processor as load_processor
    from lavis_lite.zoo import create_model as create_model
    from lavis_lite.zoo import list_models as list_models
    from lavis_lite.zoo import load_model as load_model
    from lavis_lite.zoo import load_model_and_preprocess as load_model_and_preprocess
    from lavis_lite.zoo import load_preprocess as load_preprocess
    from lavis_lite.zoo import model_zoo as model_zoo

__version__ = "0.1.0"

_PUBLIC = {
    "create_model": "lavis_lite.zoo",
    "dataset_zoo": "lavis_lite.data",
    "list_models": "lavis_lite.zoo",
    "load_dataset": "lavis_lite.data",
    "load_model": "lavis_lite.zoo",
    "load_model_and_preprocess": "lavis_lite.zoo",
    "load_preprocess": "lavis_lite.zoo",
    "load_processor": "lavis_lite.data",
    "model_zoo": "lavis_lite.zoo",
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
