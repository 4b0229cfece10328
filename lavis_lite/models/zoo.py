"""Models by name: built with a config section or by hand, with weights and processors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lavis_lite import registry
from lavis_lite.config.calls import checked_arguments, checked_options
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.registry import cards
from lavis_lite.registry.component import ModelComponent, merge

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lavis_lite.models.folder import SavedModel

Processors = dict[str, Callable[..., Any]]
FORMATS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # torch's names
logger = logging.getLogger(__name__)


def build_model(model: ModelComponent) -> nn.Module:
    """Build a model from its whole component and load its ``checkpoint``, if it names one.

    A config's components are whole; others are made so by ``cards.whole``. The checkpoint
    ``released`` stands for the released weights of the model's type.
    """
    source = model.checkpoint
    if source == cards.RELEASED:
        source = cards.released_weights(model.name, model.type)
    card = {"name": model.name, "type": model.type or cards.default_type(model.name)}
    return _build({**card, "args": dict(model.args)}, source)


def _build(card: dict[str, Any], source: str | None) -> nn.Module:
    """A model with the name and arguments of its card, and the weights of ``source``."""
    spec = {**card["args"], "name": card["name"]}
    if source is None:
        built = registry.build("model", spec)
    else:
        from lavis_lite.checkpoint.weights import build_with_weights
        from lavis_lite.registry.weight_cards import known_digest

        built, report = build_with_weights(
            lambda: registry.build("model", spec), source, known_digest(source)
        )
        built.load_report = report
    built.card = {**card, "checkpoint": source}
    return built


@checked_options
def create_model(
    name: str | None = None,
    model_type: str | None = None,
    pretrained: bool = False,
    checkpoint: str | None = None,
    *,
    revision: str | None = None,
    **overrides: object,
) -> nn.Module:
    """A model with random weights; with released ones by ``pretrained=True``; or with your own.

    Args:
        name: ``blip_caption``, or with its type ``blip_caption.base_coco``. None: what the
            checkpoint says, which then is a folder of ``save_pretrained`` or of a run.
        model_type: one of ``cards.types(name)``; the first by default.
        pretrained: load the released weights of the type (downloads them at first use).
        checkpoint: a file, folder, URL or ``hf://`` address to load instead. Where it says itself
            that it is such a model, and no type is asked for, its own arguments are used. A
            repository of the hub, ``owner/name``, is such a folder if ``push_to_hub`` wrote it.
        revision: branch, tag or commit of that repository.
        overrides: the builder's arguments, laid onto the type's preset, or onto those of the
            checkpoint.

    Raises:
        UnknownName: no such model or type.
        ConfigError: an override that the builder does not take; no name and none in the checkpoint.
        CheckpointError: weights that do not fit, for example after an override of their shape.
    """
    checkpoint = _at_hand(name, checkpoint, revision)
    if saved := _saved(name, model_type, checkpoint):
        overrides = checked_arguments("model", saved.name, overrides)
        return _build({**vars(saved), "args": merge(saved.args, overrides)}, checkpoint)
    name, model_type = _name_and_type(name, model_type)
    overrides = checked_arguments("model", name, overrides)
    if pretrained and checkpoint is None:
        checkpoint = cards.RELEASED
    model = ModelComponent(name=name, type=model_type, checkpoint=checkpoint, args=overrides)
    return build_model(cards.whole(model))


@checked_options
def load_model(
    name: str | None = None,
    model_type: str | None = None,
    is_eval: bool = False,
    device: str | torch.device = "cpu",
    checkpoint: str | None = None,
    *,
    dtype: str | None = None,
    revision: str | None = None,
    prepack: bool = False,
    compile: bool = False,
    **overrides: object,
) -> nn.Module:
    """A model with its released weights, or those of ``checkpoint`` (LAVIS's ``load_model``).

    A type without released weights (``tiny``) comes with random ones, and a warning says so. The
    remaining arguments are those of ``create_model``.

    Args:
        dtype: format of the weights, fp32, bf16 or fp16; None: as the model has them. The latter
            two are for inference; images may be fp32 all the same.
        prepack: also lay the weights out as the CPU multiplies fastest (``prepack.prepack``),
            for inference, which takes less time and twice the memory.
        compile: ``torch.compile`` the layers of the towers (``compiling.compile_towers``) instead;
            the first pass then takes its time.

    Raises:
        ConfigError: no such format or device, ``prepack`` and ``compile`` at once, or no C++
            compiler to compile with.
    """
    if dtype is not None and dtype not in FORMATS:
        raise ConfigError(f"dtype: {dtype!r}.{suggest(dtype, FORMATS)} Known: {', '.join(FORMATS)}")
    if prepack and compile:
        raise ConfigError(
            "compile: compiled layers would not use the packed weights of `prepack`; choose one"
        )
    place = _device(device)
    released = False
    if checkpoint is None:
        name, model_type = _name_and_type(name, model_type)
        released = "checkpoint" in cards.type_card(name, model_type)
        if not released:
            kind = f" of type {model_type!r}" if model_type else ""
            logger.warning("%s%s has no released weights: these are random", name, kind)
    model = create_model(
        name,
        model_type,
        pretrained=released,
        checkpoint=checkpoint,
        revision=revision,
        **overrides,
    )
    model = (model.eval() if is_eval else model).to(place)
    if dtype is not None:
        import torch

        model = model.to(getattr(torch, FORMATS[dtype]))
    if prepack:
        from lavis_lite.modules.layers.prepack import prepack as prepack_linears

        prepack_linears(model)
    if compile:
        from lavis_lite.modules.layers import compile as compiling

        compiling.compile_towers(model)
    return model


@checked_options
def load_model_and_preprocess(
    name: str | None = None,
    model_type: str | None = None,
    is_eval: bool = False,
    device: str | torch.device = "cpu",
    **overrides: Any,
) -> tuple[nn.Module, Processors, Processors]:
    """A model with released weights, or those of ``checkpoint``, and its processors.

    Returns:
        The model; image processors ``{"train", "eval"}``; text processors ``{"train", "eval"}``.
    """
    model: Any = load_model(name, model_type, is_eval, device, **overrides)
    return model, *processors_of(model.card, getattr(model, "image_size", None))


def processors_of(
    card: Mapping[str, Any], image_size: ImageSize | None
) -> tuple[Processors, Processors]:
    """Image processors and text processors of a model, each ``{"train", "eval"}``.

    Args:
        card: the model's, with its name and type, and its processors where they are its own.
        image_size: the model's.
    """
    sections = card.get("processors") or cards.processors(card["name"], card.get("type"))
    images, texts = sections.get("image", {}), sections.get("text", {})
    return _build_processors(images, image_size), _build_processors(texts, image_size)


@checked_options
def load_preprocess(config: Mapping[str, Any]) -> tuple[Processors, Processors]:
    """Processors from a ``preprocess`` section as LAVIS writes it.

    Args:
        config: ``{"vis_processor": {"train": {"name": ...}, "eval": ...}, "text_processor": ...}``.

    Returns:
        Image and text processors, each ``{"train", "eval"}``; identity where nothing is named.
    """
    known = ("vis_processor", "text_processor")
    for key in config:
        if key not in known and (near := suggest(key, known)):
            raise ConfigError(f"preprocess: unknown key {key!r}.{near}")
    images, texts = (config.get(key) or {} for key in known)
    return _build_processors(images, None), _build_processors(texts, None)


def _device(device: str | torch.device) -> torch.device:
    """The device of that name, on which something was put to see that it is there."""
    import torch

    from lavis_lite.distributed import best_device

    try:
        found = best_device() if device == "auto" else torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, TypeError, AssertionError) as error:
        known = ("cpu", "cuda", "cuda:0", "mps", "auto")
        first = str(error).partition("\n")[0]
        raise ConfigError(
            f"device: {device!r}.{suggest(str(device), known)} Known: {', '.join(known)} ({first})"
        ) from None
    return found


class ModelZoo:
    """All models with their types: prints as a table, iterates over (name, types), has a length."""

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        return ((name, cards.types(name)) for name in cards.list_models())

    def __len__(self) -> int:
        """Count the types of all models together, as LAVIS does."""
        return sum(len(names) for _, names in self)

    def __str__(self) -> str:
        width = max((len(name) for name in cards.list_models()), default=0)
        rows = [f"{'Architectures':<{width}}  Types", "=" * (width + 40)]
        return "\n".join(rows + [f"{name:<{width}}  {', '.join(names)}" for name, names in self])

    __repr__ = __str__


model_zoo = ModelZoo()


def _at_hand(name: str | None, checkpoint: str | None, revision: str | None) -> str | None:
    """The checkpoint, fetched where it is a model's folder on the hub and alone says what it is."""
    if checkpoint is None:
        if revision is not None:
            raise ConfigError("revision: it is of a repository of the hub: checkpoint=owner/name")
        return None
    if name is not None and revision is None:
        return checkpoint
    from lavis_lite.models import folder as model_folder

    return model_folder.at_hand(checkpoint, revision)


def _saved(name: str | None, type: str | None, checkpoint: str | None) -> SavedModel | None:
    """Read the description in a checkpoint that is asked for alone or by the name in it."""
    if checkpoint is None or checkpoint == cards.RELEASED or "://" in str(checkpoint):
        return None
    from lavis_lite.models import folder as model_folder

    saved = model_folder.read(checkpoint)
    fits = saved and type is None and name in (None, saved.name)
    return saved if fits else None


def _name_and_type(name: str | None, type: str | None) -> tuple[str, str | None]:
    """``blip_caption.base_coco`` as name and type; any other name as it is."""
    if name is None:
        raise ConfigError(
            "which model? Give its name, or as checkpoint a folder of save_pretrained or of a run. "
            f"Models: {', '.join(cards.list_models())}"
        )
    base, dot, tag = name.partition(".")
    return (base, type or tag) if dot and registry.problem("model", name) else (name, type)


def _build_processors(section: Mapping[str, Any], image_size: ImageSize | None) -> Processors:
    built: Processors = {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"processors: {section!r:.60}; a mapping with `train` and `eval`")
    for key in section:
        if key not in ("train", "eval") and (near := suggest(key, ("train", "eval"))):
            raise ConfigError(f"processors: unknown key {key!r}.{near}")
    for split in ("train", "eval"):
        spec = section.get(split)
        if spec is None:
            built[split] = unprocessed
        elif not isinstance(spec, Mapping) or "name" not in spec:
            raise ConfigError(f"processor {split!r}: a mapping with a `name`, not {spec!r}")
        else:
            runtime = {} if image_size is None else {"image_size": image_size}
            built[split] = registry.build("processor", spec, **runtime)
    return built


def unprocessed(item: object, rng: object = None) -> object:
    """Return what it is given: the processor where none is named."""
    return item
