"""A pipeline by the name of its task, with the arguments that code for transformers has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lavis_lite import registry
from lavis_lite.errors import ConfigError, UnknownName, suggest
from lavis_lite.models import zoo
from lavis_lite.models.pipelines.base import BATCH_SIZE, Pipeline
from lavis_lite.models.pipelines.features import FeatureExtraction
from lavis_lite.models.pipelines.generating import ImageToText, VisualQuestionAnswering
from lavis_lite.models.pipelines.scoring import (
    ImageTextMatching,
    ImageTextRetrieval,
    ZeroShotImageClassification,
)
from lavis_lite.models.pipelines.session import Session, can_do, check_task, open_session
from lavis_lite.modules.samples import kind_of
from lavis_lite.registry import cards

TASKS: dict[str, type[Pipeline]] = {
    kind.task: kind
    for kind in (
        *(ImageToText, VisualQuestionAnswering, ImageTextMatching, ImageTextRetrieval),
        *(ZeroShotImageClassification, FeatureExtraction),
    )
}
ALIASES = {"vqa": "visual-question-answering", "image-feature-extraction": "feature-extraction"}
# Tasks of transformers that no model here does.
ELSEWHERE = {
    *("any-to-any", "audio-classification", "automatic-speech-recognition", "depth-estimation"),
    *("document-question-answering", "fill-mask", "image-classification", "image-segmentation"),
    *("image-text-to-text", "image-to-image", "keypoint-matching", "mask-generation"),
    *("object-detection", "question-answering", "sentiment-analysis", "summarization"),
    *("table-question-answering", "text-classification", "text-generation", "text-to-audio"),
    *("text-to-speech", "text2text-generation", "token-classification", "translation"),
    *("video-classification", "zero-shot-audio-classification", "zero-shot-classification"),
    "zero-shot-object-detection",
}
_WITHOUT_EFFECT = {"framework", "use_fast", "trust_remote_code"}
_PARTS = ("tokenizer", "image_processor", "feature_extractor", "processor")
_TAKEN = (
    *("task", "model", "device", "dtype", "batch_size", "model_kwargs", "revision"),
    *("torch_dtype", "device_map", *_PARTS, *sorted(_WITHOUT_EFFECT)),
)
_FORMATS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "auto": None}


def pipeline(
    task: str | None = None,
    model: object = None,
    device: int | str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    model_kwargs: Mapping[str, object] | None = None,
    revision: str | None = None,
    **others: object,
) -> Pipeline:
    """Return a task in one line, as a function of pictures; transformers 4 had such a call.

    The page "Pipelines" has the arguments and results of every task.

    Args:
        task: ``image-to-text``, ``visual-question-answering``, ``image-text-matching``,
            ``image-text-retrieval``, ``zero-shot-image-classification`` or ``feature-extraction``;
            None: what the model is for.
        model: a registered name, also with its type (``blip_caption.scenes``); a folder of
            ``save_pretrained`` or of a run, or a file of weights; an id of the hub, ours or one of
            the models of transformers that are known here (``Salesforce/blip-vqa-base``); or a
            model that is loaded. None: the one made for the task.
        device: ``auto`` (None), ``cpu``, ``cuda:0``, or the number of a CUDA device; -1 is the CPU.
        dtype: ``fp32``, ``bf16``, ``fp16``, or torch's; None: as the model has them.
        batch_size: pictures that the model looks at together, at most.
        model_kwargs: arguments of the model's builder.
        revision: branch, tag or commit of a repository of the hub.
        others: further arguments of transformers' own, where they mean something here.

    Raises:
        UnknownName: no such task or model; the message has the nearest.
        ConfigError: a model that cannot do the task, or an argument that is not taken.
        DownloadError: weights that are not here and cannot be fetched.
    """
    kind = None if task is None else task_class(task)
    asked_device, asked_format = _transformers_words(model, device, dtype, others)
    where, kept = _device_name(asked_device), _format(asked_format)
    overrides: dict[str, Any] = dict(model_kwargs or {})
    if isinstance(model, nn.Module):
        return _of_loaded(
            kind, model, None if asked_device is None else where, batch_size, overrides
        )
    name, type, checkpoint, mapped = _resolved(model, revision)
    if kind is None:
        kind = _made_for(name, checkpoint)
    session = open_session(
        *(kind.needs, name, type, checkpoint, where, kept), option="", **{**mapped, **overrides}
    )
    return kind(session, batch_size)


def task_class(task: str) -> type[Pipeline]:
    """Return the class of a task.

    Raises:
        UnknownName: no such task, or one of transformers that no model here does.
    """
    found = TASKS.get(ALIASES.get(task, task) if isinstance(task, str) else "")
    if found is not None:
        return found
    if task in ELSEWHERE:
        raise UnknownName(
            f"task: {task!r} is a task of transformers that no model here does; "
            f"use transformers.pipeline for it. Tasks here: {', '.join(TASKS)}"
        )
    near = suggest(str(task), [*TASKS, *ALIASES])
    raise UnknownName(f"task: no {task!r}.{near} Tasks: {', '.join(TASKS)}")


def _transformers_words(
    model: object, device: object, dtype: object, others: dict[str, object]
) -> tuple[object, object]:
    """Device and format, also by the other names that transformers has for them.

    Raises:
        ConfigError: an argument that is not taken here, or a part from elsewhere than the model.
    """
    for name, value in others.items():
        if name == "token":
            raise ConfigError("token: not taken in a call; set HF_TOKEN, or use `hf auth login`")
        if name not in _TAKEN:
            near = suggest(name, _TAKEN)
            raise ConfigError(f"pipeline: no argument {name!r}.{near} It takes {', '.join(_TAKEN)}")
        if name in _PARTS and value not in (None, model):
            raise ConfigError(
                f"{name}: {kind_of(value)}; it comes with the model here, so leave it out "
                '(another vocabulary: model_kwargs={"tokenizer": ...})'
            )
    if device is None and others.get("device_map") is not None:
        device = others["device_map"]
    return device, others.get("torch_dtype") if dtype is None else dtype


def _device_name(device: object) -> str:
    if device is None:
        return "auto"
    if isinstance(device, int) and not isinstance(device, bool):
        return f"cuda:{device}" if device >= 0 else "cpu"
    if isinstance(device, str | torch.device):
        return str(device)
    raise ConfigError(f"device: {kind_of(device)}; auto, cpu, cuda, cuda:N, mps or a number")


def _format(dtype: object) -> str | None:
    name = str(dtype).removeprefix("torch.")
    if dtype is None or name in _FORMATS:
        return _FORMATS.get(name)
    if isinstance(dtype, str):  # the loader says which names there are
        return dtype
    raise ConfigError(f"dtype: {kind_of(dtype)}. Known: {', '.join(zoo.FORMATS)}")


def _resolved(
    model: object, revision: str | None
) -> tuple[str | None, str | None, str | None, Mapping[str, object]]:
    """Name, type, source of weights and arguments of the model that is meant."""
    if model is None:
        return None, None, None, {}
    if not isinstance(model, str | os.PathLike):
        raise ConfigError(
            f"model: {kind_of(model)}; a name, a folder, a hub id or a loaded model is expected"
        )
    text = os.fspath(model)
    name = text.partition(".")[0]
    if isinstance(model, str) and not (registry.problem("model", text) and _is_unknown(name)):
        return text, None, None, {}
    if os.path.exists(os.path.expanduser(text)):
        return None, None, text, {}
    if (card := cards.of_hub_id(text)) is not None:
        return card.name, card.type, _at(text, revision), card.args
    if "/" not in text:
        raise UnknownName(str(registry.problem("model", text)))
    return None, None, _at(text, revision), {}


def _at(repository: str, revision: str | None) -> str:
    return repository if revision is None else f"{repository}@{revision}"


def _is_unknown(name: str) -> bool:
    return registry.problem("model", name) is not None


def _made_for(name: str | None, checkpoint: str | None) -> type[Pipeline]:
    """The first task that a model can do.

    Raises:
        ConfigError: neither a task nor a model.
    """
    if name is None and checkpoint is not None:
        from lavis_lite.models import folder

        saved = folder.read(folder.at_hand(checkpoint))
        name = saved.name if saved else None
    if name is None:
        raise ConfigError(f"task: which one? Tasks: {', '.join(TASKS)}")
    base = name if not _is_unknown(name) else name.partition(".")[0]
    return next(kind for kind in _by_model() if can_do(kind.needs, base))


def _by_model() -> list[type[Pipeline]]:
    """Tasks in the order in which a model's own is found: what few models can comes first."""
    first = [ImageToText, VisualQuestionAnswering, ImageTextMatching]
    return [*first, *(kind for kind in TASKS.values() if kind not in first)]


def _of_loaded(
    kind: type[Pipeline] | None,
    model: nn.Module,
    where: object,
    batch_size: int,
    overrides: Mapping[str, object],
) -> Pipeline:
    card = getattr(model, "card", None)
    if not card:
        raise ConfigError(
            f"model: {type(model).__name__}; a model that load_model, create_model or a run made"
        )
    if overrides:
        raise ConfigError("model_kwargs: the model is built already; give them to load_model")
    kind = kind or _made_for(card["name"], None)
    check_task(kind.needs, card["name"], option="")
    images, texts = zoo.processors_of(card, getattr(model, "image_size", None))
    model = model.eval()
    if where is not None:
        model = model.to(str(where))
    place = next(model.parameters()).device
    return kind(Session(model, images["eval"], texts["eval"], place), batch_size)
