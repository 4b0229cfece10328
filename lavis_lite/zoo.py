"""Models by name: cards, presets, weights and processors.

Every package's zoo.yaml has, beside its components, the cards of its models::

    presets:                                    # arguments that several types share
      base: {vision: {name: timm/vit_base_patch16_224}, text: {name: med}}
    models:
      my_caption:
        processors: {image: {train: {...}, eval: {...}}, text: {...}}
        types:                                  # the first one is the default
          base: {preset: base, args: {image_size: 384}, checkpoint: https://...}
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite import registry
from lavis_lite.config.merge import merge
from lavis_lite.config.schema import ModelComponent
from lavis_lite.errors import CheckpointError, ConfigError, UnknownName, suggest
from lavis_lite.image_size import ImageSize

if TYPE_CHECKING:
    from torch import nn

    from lavis_lite.model_folder import SavedModel

Processors = dict[str, Callable[..., Any]]
RELEASED = "released"
FORMATS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # torch's names
logger = logging.getLogger(__name__)


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of all models that match a shell pattern."""
    return registry.names("model", pattern)


def card(name: str) -> dict[str, Any]:
    """What is known of a model: its types with presets, weights, sizes and sources.

    Raises:
        UnknownName: no model has this name; the message lists the nearest.
    """
    if problem := registry.problem("model", name):
        raise UnknownName(problem)
    for package, zoo in registry.index.zoos.items():
        if name in zoo["models"]:
            return {"package": package, "types": {}, **zoo["models"][name]}
    return {"package": None, "types": {}}


def types(name: str) -> list[str]:
    """The types of a model, the default one first."""
    return list(card(name)["types"])


def default_type(name: str) -> str | None:
    """The type that ``load_model(name)`` means; None for a model without types."""
    return next(iter(types(name)), None)


def default_for(task: str) -> str:
    """The model that a command uses when none is named: whose card says ``default_for: [task]``.

    Raises:
        UnknownName: no model does.
    """
    for name in list_models():
        if task in card(name).get("default_for", ()):
            return name
    raise UnknownName(f"no model is made for {task!r}; name one of {', '.join(list_models())}")


def model_type(name: str, type: str) -> dict[str, Any]:
    """The card of one type of a model.

    Raises:
        UnknownName: the model has no such type; the message lists those it has.
    """
    known = card(name)["types"]
    if type not in known:
        listed = ", ".join(known) or "none"
        raise UnknownName(
            f"model {name!r} has no type {type!r}.{suggest(type, known)} Types: {listed}"
        )
    return known[type] or {}


def preset(name: str, type: str) -> dict[str, Any]:
    """The builder's arguments that a type stands for.

    Raises:
        UnknownName: the model has no such type, or the type's card names no preset of its package.
    """
    entry = model_type(name, type)
    shared = registry.index.zoos[card(name)["package"]]["presets"]
    start = entry.get("preset")
    if start is not None and start not in shared:
        raise UnknownName(
            f"model {name!r}, type {type!r}: no preset {start!r}.{suggest(start, shared)}"
        )
    return merge(shared.get(start, {}), entry.get("args", {}))


def vocabulary_size(tokenizer: str) -> int | None:
    """Tokens of a tokenizer of the hub, by the packages' zoo.yaml; None where none says so."""
    said = (zoo["vocabularies"].get(tokenizer) for zoo in registry.index.zoos.values())
    return next((size for size in said if size is not None), None)


def model_args(model: ModelComponent) -> dict[str, Any]:
    """All arguments of a model component: its own, laid onto those of its type.

    A ``type`` of null means the default type's preset, so that a config may name the model alone.
    """
    chosen = model.type or default_type(model.name)
    start = preset(model.name, chosen) if chosen else {}
    args = merge(start, dict(model.args))
    if isinstance(args.get("losses"), Mapping):
        args["losses"] = {k: v for k, v in args["losses"].items() if v is not None}
    return args


def build_model(model: ModelComponent) -> nn.Module:
    """Build a model from its config section and load its ``checkpoint``, if it names one.

    The checkpoint ``released`` stands for the released weights of the model's type.
    """
    source = model.checkpoint
    if source == RELEASED:
        source = released_weights(model.name, model.type)
    card = {"name": model.name, "type": model.type or default_type(model.name)}
    return _build({**card, "args": model_args(model)}, source)


def _build(card: dict[str, Any], source: str | None) -> nn.Module:
    """A model with the name and arguments of its card, and the weights of ``source``."""
    spec = {**card["args"], "name": card["name"]}
    if source is None:
        built = registry.build("model", spec)
    else:
        from lavis_lite.cards import known_digest
        from lavis_lite.weights import build_with_weights

        built, report = build_with_weights(
            lambda: registry.build("model", spec), source, known_digest(source)
        )
        built.load_report = report
    built.card = {**card, "checkpoint": source}
    return built


def create_model(
    name: str | None = None,
    model_type: str | None = None,
    pretrained: bool = False,
    checkpoint: str | None = None,
    **overrides: Any,
) -> nn.Module:
    """A model with random weights; with released ones by ``pretrained=True``; or with your own.

    Args:
        name: ``blip_caption``, or with its type ``blip_caption.base_coco``. None: what the
            checkpoint says, which then is a folder of ``save_pretrained`` or of a run.
        model_type: one of ``types(name)``; the first by default.
        pretrained: load the released weights of the type (downloads them at first use).
        checkpoint: a file, folder, URL or ``hf://`` address to load instead. Where it says itself
            that it is such a model, and no type is asked for, its own arguments are used.
        overrides: the builder's arguments, laid onto the type's preset, or onto those of the
            checkpoint.

    Raises:
        UnknownName: no such model or type.
        ConfigError: an override that the builder does not take; no name and none in the checkpoint.
        CheckpointError: weights that do not fit, for example after an override of their shape.
    """
    if saved := _saved(name, model_type, checkpoint):
        return _build({**vars(saved), "args": merge(saved.args, overrides)}, checkpoint)
    name, model_type = _name_and_type(name, model_type)
    if pretrained and checkpoint is None:
        checkpoint = RELEASED
    return build_model(
        ModelComponent(name=name, type=model_type, checkpoint=checkpoint, args=overrides)
    )


def load_model(
    name: str | None = None,
    model_type: str | None = None,
    is_eval: bool = False,
    device: str = "cpu",
    checkpoint: str | None = None,
    *,
    dtype: str | None = None,
    prepack: bool = False,
    compile: bool = False,
    **overrides: Any,
) -> nn.Module:
    """A model with its released weights, or those of ``checkpoint`` (LAVIS's ``load_model``).

    A type without released weights (``tiny``) comes with random ones, and a warning says so. The
    remaining arguments are those of ``create_model``.

    Args:
        dtype: format of the weights, fp32, bf16 or fp16; None: as the model has them. The latter
            two are for inference; images may be fp32 all the same.
        prepack: also lay the weights out as the CPU multiplies fastest (``prepacking.prepack``),
            for inference, which takes less time and twice the memory.
        compile: ``torch.compile`` the layers of the towers (``compiling.compile_towers``) instead;
            the first pass then takes its time.

    Raises:
        ConfigError: no such format, ``prepack`` and ``compile`` at once, or no C++ compiler to
            compile with.
    """
    if dtype is not None and dtype not in FORMATS:
        raise ConfigError(f"dtype: {dtype!r}.{suggest(dtype, FORMATS)} Known: {', '.join(FORMATS)}")
    if prepack and compile:
        raise ConfigError(
            "compile: compiled layers would not use the packed weights of `prepack`; choose one"
        )
    released = False
    if checkpoint is None:
        name, model_type = _name_and_type(name, model_type)
        released = "checkpoint" in _type_card(name, model_type)
        if not released:
            kind = f" of type {model_type!r}" if model_type else ""
            logger.warning("%s%s has no released weights: these are random", name, kind)
    model = create_model(name, model_type, pretrained=released, checkpoint=checkpoint, **overrides)
    if device == "auto":
        from lavis_lite.device import best_device

        device = str(best_device())
    model = (model.eval() if is_eval else model).to(device)
    if dtype is not None:
        import torch

        model = model.to(getattr(torch, FORMATS[dtype]))
    if prepack:
        from lavis_lite import prepacking

        prepacking.prepack(model)
    if compile:
        from lavis_lite import compiling

        compiling.compile_towers(model)
    return model


def load_model_and_preprocess(
    name: str | None = None,
    model_type: str | None = None,
    is_eval: bool = False,
    device: str = "cpu",
    **overrides: Any,
) -> tuple[nn.Module, Processors, Processors]:
    """A model with released weights, or those of ``checkpoint``, and its processors.

    Returns:
        The model; image processors ``{"train", "eval"}``; text processors ``{"train", "eval"}``.
    """
    model: Any = load_model(name, model_type, is_eval, device, **overrides)
    sections = model.card.get("processors") or card(model.card["name"]).get("processors", {})
    image_size = getattr(model, "image_size", None)
    return (
        model,
        _build_processors(sections.get("image", {}), image_size),
        _build_processors(sections.get("text", {}), image_size),
    )


def load_preprocess(config: Mapping[str, Any]) -> tuple[Processors, Processors]:
    """Processors from a ``preprocess`` section as LAVIS writes it.

    Args:
        config: ``{"vis_processor": {"train": {"name": ...}, "eval": ...}, "text_processor": ...}``.

    Returns:
        Image and text processors, each ``{"train", "eval"}``; identity where nothing is named.
    """
    images, texts = config.get("vis_processor") or {}, config.get("text_processor") or {}
    return _build_processors(images, None), _build_processors(texts, None)


def released_weights(name: str, type: str | None = None) -> str:
    """Path or URL of the released weights of a model type.

    Raises:
        CheckpointError: this type has none; the message lists those that have.
    """
    entry = _type_card(name, type)
    if "checkpoint" not in entry:
        with_weights = [t for t, c in card(name)["types"].items() if "checkpoint" in (c or {})]
        raise CheckpointError(
            f"model {name!r} has no released weights for type {type or default_type(name)!r}; "
            f"types with weights: {', '.join(with_weights) or 'none'}"
        )
    address = entry["checkpoint"]
    if "://" in address:
        return address
    spec = importlib.util.find_spec(card(name)["package"])
    assert spec is not None
    assert spec.submodule_search_locations
    return str(Path(next(iter(spec.submodule_search_locations))) / address)


class ModelZoo:
    """All models with their types: prints as a table, iterates over (name, types), has a length."""

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        return ((name, types(name)) for name in list_models())

    def __len__(self) -> int:
        """How many types there are of all models together, as in LAVIS."""
        return sum(len(names) for _, names in self)

    def __str__(self) -> str:
        width = max((len(name) for name in list_models()), default=0)
        rows = [f"{'Architectures':<{width}}  Types", "=" * (width + 40)]
        return "\n".join(rows + [f"{name:<{width}}  {', '.join(names)}" for name, names in self])

    __repr__ = __str__


model_zoo = ModelZoo()


def _saved(name: str | None, type: str | None, checkpoint: str | None) -> SavedModel | None:
    """What a checkpoint says of itself, if it is asked for alone or by the name that it has."""
    if checkpoint is None or checkpoint == RELEASED or "://" in str(checkpoint):
        return None
    from lavis_lite import model_folder

    saved = model_folder.read(checkpoint)
    fits = saved and type is None and name in (None, saved.name)
    return saved if fits else None


def _name_and_type(name: str | None, type: str | None) -> tuple[str, str | None]:
    """``blip_caption.base_coco`` as name and type; any other name as it is."""
    if name is None:
        raise ConfigError(
            "which model? Give its name, or as checkpoint a folder of save_pretrained or of a run. "
            f"Models: {', '.join(list_models())}"
        )
    base, dot, tag = name.partition(".")
    return (base, type or tag) if dot and registry.problem("model", name) else (name, type)


def _type_card(name: str, type: str | None) -> dict[str, Any]:
    chosen = type or default_type(name)
    return model_type(name, chosen) if chosen else {}


def _build_processors(section: Mapping[str, Any], image_size: ImageSize | None) -> Processors:
    built: Processors = {}
    for split in ("train", "eval"):
        spec = section.get(split)
        if spec is None:
            built[split] = _identity
        elif not isinstance(spec, Mapping) or "name" not in spec:
            raise ConfigError(f"processor {split!r}: a mapping with a `name`, not {spec!r}")
        else:
            runtime = {} if image_size is None else {"image_size": image_size}
            built[split] = registry.build("processor", spec, **runtime)
    return built


def _identity(item: Any, rng: Any = None) -> Any:
    return item
