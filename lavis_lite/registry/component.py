"""A component: a registered name with its arguments, as configs and presets write it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from lavis_lite.errors import ConfigError
from lavis_lite.registry.capabilities import Capability

# The arguments of a model that hold components. The last is a mapping of components.
NESTED_KINDS = {
    "vision": "vision_encoder",
    "text": "text_backbone",
    "language": "language_model",
}
NESTED_MAPPINGS = {"losses": "loss"}

# Names under which foreign classes have what our contracts call `width`.
SYNONYMS = ("embed_dim", "num_features", "hidden_size", "dim", "out_dim", "out_features")


@dataclass(frozen=True)
class Component:
    """A registered name with its arguments."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def config_keys(cls) -> dict[str, Field[Any]]:
        """Return the keys that a config may give beside the name and the arguments."""
        not_keys = ("name", "args", "given")
        return {field.name: field for field in fields(cls) if field.name not in not_keys}

    @property
    def written(self) -> Mapping[str, Any]:
        """The arguments as a config writes them."""
        return self.args

    @property
    def spec(self) -> dict[str, Any]:
        """The component as ``registry.build`` takes it."""
        return {"name": self.name, **self.args}


@dataclass(frozen=True)
class ModelComponent(Component):
    """A model: ``name``, the ``type`` that its arguments start from, and initial weights.

    Attributes:
        type: of the model's card; None stands for the first one.
        checkpoint: a file, an output folder of another run, a URL, ``hf://owner/repo/file``, or
            ``released``: the released weights of the type.
        given: the arguments before ``cards.whole`` laid them onto those of the type; None in a
            component that was not made whole.
    """

    type: str | None = None
    checkpoint: str | None = None
    given: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def written(self) -> Mapping[str, Any]:
        """The arguments as a config writes them, without those of the type."""
        return self.args if self.given is None else self.given

    @property
    def requires(self) -> tuple[Capability, ...]:
        """The capabilities that the model's part in a config asks for; a subclass says them."""
        return ()


def nested(args: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, Mapping[str, Any]]]:
    """Yield the components among a model's arguments: key path, registry kind, component."""
    for key, kind in NESTED_KINDS.items():
        if isinstance(spec := args.get(key), Mapping):
            yield (key,), kind, spec
    for key, kind in NESTED_MAPPINGS.items():
        for name, spec in (args.get(key) or {}).items():
            yield (key, name), kind, spec


def merge(base: Any, over: Any, at: str = "") -> Any:
    """Merge ``over`` onto a copy of ``base``; neither is changed.

    Mappings merge key by key, unless both have a ``name`` and the names differ: then the new
    component replaces the old one with its arguments. Lists are replaced whole; an integer key
    (from an override like ``a[0].b=1``) reaches into one. ``at`` is their key path, for errors.
    """
    if isinstance(base, list) and _reaches_into_list(over):
        return _merge_into_list(base, over, at)
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    if "name" in base and "name" in over and base["name"] != over["name"]:
        return dict(over)
    return {
        **base,
        **{k: merge(base.get(k, {}), v, f"{at}.{k}" if at else str(k)) for k, v in over.items()},
    }


def _reaches_into_list(over: object) -> bool:
    return isinstance(over, dict) and bool(over) and all(isinstance(k, int) for k in over)


def _merge_into_list(base: list[Any], over: Mapping[int, Any], at: str) -> list[Any]:
    merged = list(base)
    for index, value in over.items():
        if not 0 <= index < len(merged):
            raise ConfigError(f"{at}[{index}] is past the end of a list of {len(merged)}")
        merged[index] = merge(merged[index], value, f"{at}[{index}]")
    return merged


def width_hint(owner: str, attributes: Iterable[str]) -> str | None:
    """Return a hint such as ``self.width = self.embed_dim``; None if no synonym is present."""
    synonym = next((s for s in SYNONYMS if s in attributes), None)
    return f"`{owner}.width = {owner}.{synonym}`" if synonym else None
