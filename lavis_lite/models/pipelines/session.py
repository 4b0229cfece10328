"""A loaded model with its processors, for a task that needs certain capabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis_lite import distributed, registry
from lavis_lite.errors import ConfigError, DownloadError
from lavis_lite.models import folder as model_folder
from lavis_lite.models import zoo
from lavis_lite.modules.interfaces import (
    Answers,
    Contrasts,
    Embeds,
    EncodesImage,
    Generates,
    Matches,
)
from lavis_lite.registry import cards
from lavis_lite.registry.capabilities import Capability, lacks, members_of, missing_from

# Task -> what a model must have for it: all of one of these.
NEEDED: dict[str, list[Capability]] = {
    "caption": [Generates],
    "match": [Matches, Embeds],
    "search": [Matches, Embeds],
    "answer": [Answers],
    "label": [Contrasts, Matches],
    "features": [EncodesImage],
}


@dataclass(frozen=True)
class Session:
    """A model in evaluation mode on its device, and its processors for evaluation."""

    model: Any
    image: Callable[[Image.Image], Tensor]
    text: Callable[[str], str]
    device: torch.device

    def can(self, *capabilities: Capability) -> bool:
        """Tell whether the model has all of these capabilities."""
        return not missing_from(self.model, capabilities)


def open_session(
    task: str,
    model: str | None = None,
    type: str | None = None,
    checkpoint: str | None = None,
    device_name: str = "auto",
    dtype: str | None = None,
    *,
    option: str = "--",
    **overrides: object,
) -> Session:
    """Load the model that a command line, or a call, means.

    Args:
        task: one of ``NEEDED``.
        model: its name; by default what the checkpoint says, else the one made for the task.
        type: of the model.
        checkpoint: a folder of ``save_pretrained`` or of a run, or any weights of the model.
        device_name: ``auto`` or a device.
        dtype: format of the weights; see ``load_model``.
        option: what messages put before the name of an argument.
        overrides: arguments of the model's builder.

    Raises:
        ConfigError: it cannot do the task, or there is no such device.
        UnknownName: no such model or type.
        DownloadError: its weights are not here and cannot be fetched; names a type that needs none.
    """
    where = distributed.choose(device_name, option=f"{option}device")
    if checkpoint is not None and model is None:
        checkpoint = model_folder.at_hand(checkpoint)
    saved = model_folder.read(checkpoint) if checkpoint and "://" not in checkpoint else None
    name = model or (saved.name if saved else cards.default_for(task))
    check_task(task, name.partition(".")[0], option)
    try:
        built, images, texts = zoo.load_model_and_preprocess(
            name,
            type,
            is_eval=True,
            device=str(where),
            checkpoint=checkpoint,
            dtype=dtype,
            **overrides,
        )
    except DownloadError as error:
        raise DownloadError(f"{error}{_offline_hint(name)}") from error
    return Session(built, images["eval"], texts["eval"], where)


def check_task(task: str, name: str, option: str = "--") -> None:
    """Refuse a model that cannot do a task.

    Raises:
        UnknownName: no such model.
        ConfigError: it lacks what the task needs; the message lists models that can.
    """
    if can_do(task, name):
        return
    able = [other for other in cards.list_models() if can_do(task, other)]
    ways = " or ".join(" and ".join(members_of([way])) for way in NEEDED[task])
    raise ConfigError(
        f"{option}model: {name!r} cannot {task}: it lacks {ways}. "
        f"Models that can: {', '.join(able)}"
    )


def can_do(task: str, name: str) -> bool:
    """Tell whether the class of a registered model has what a task needs."""
    built = registry.entry("model", name).result
    return built is not None and any(not lacks(built, [way]) for way in NEEDED[task])


def _offline_hint(name: str) -> str:
    """Name the type of a model that comes with the package."""
    types = cards.card(name.partition(".")[0])["types"]
    shipped = [
        type
        for type, entry in types.items()
        if (address := (entry or {}).get("checkpoint")) and "://" not in address
    ]
    if not shipped:
        return ""
    return f". Or `--type {shipped[0]}`: a small model that comes with the package"
