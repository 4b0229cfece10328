"""Registered datasets and processors by name, as LAVIS's users ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lavis_lite import registry
from lavis_lite.config.calls import checked_arguments, checked_options
from lavis_lite.data.published import cards
from lavis_lite.errors import ConfigError, DataError


@checked_options
def load_dataset(
    name: str,
    cfg_path: str | None = None,
    vis_path: str | None = None,
    data_type: str | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """A dataset's splits by name: `load_dataset("scenes")["test"][0]`.

    A dataset without splits of its own comes as the split `train`.

    Args:
        name: a registered dataset, or LAVIS's name of it.
        cfg_path: a YAML file with arguments of the dataset.
        vis_path: the folder of the images, where the dataset takes one.
        data_type: `images`, the only one there is.
        arguments: of the dataset; with `split`, only that one is made.

    Raises:
        UnknownName: no such dataset.
        ConfigError: an argument that the dataset doesn't take.
        DataError: files that are missing or cannot be read.
    """
    if data_type not in (None, "images"):
        raise ConfigError(f"load_dataset: data_type {data_type!r}; there are only 'images'")
    name = cards.registered_name(name)
    arguments = {**_read(cfg_path), **({"images": vis_path} if vis_path else {}), **arguments}
    arguments = checked_arguments("dataset", name, arguments)
    splits = getattr(registry.get("dataset", name), "splits", None)
    if not splits or "split" in arguments:
        split = arguments.get("split", "train")
        return {split: registry.build("dataset", {"name": name, **arguments})}
    return {
        split: registry.build("dataset", {"name": name, "split": split, **arguments})
        for split in splits
    }


class DatasetZoo:
    """The names of all datasets, for ``load_dataset``."""

    def get_names(self) -> list[str]:
        """Sorted names."""
        return registry.names("dataset")

    def __iter__(self) -> Iterator[str]:
        return iter(self.get_names())

    def __len__(self) -> int:
        return len(self.get_names())

    def __repr__(self) -> str:
        return "\n".join(self.get_names())


dataset_zoo = DatasetZoo()


@checked_options
def load_processor(
    name: str, cfg: Mapping[str, Any] | None = None, **arguments: Any
) -> Callable[..., Any]:
    """A processor by its name: `load_processor("blip_image_eval", image_size=224)`.

    Args:
        name: a registered processor.
        cfg: its arguments.
        arguments: more of them; they win.

    Raises:
        UnknownName: no such processor.
        ConfigError: an argument that it doesn't take, or misses.
    """
    given = {**(cfg or {}), **arguments}
    return registry.build(
        "processor", {**checked_arguments("processor", name, given), "name": name}
    )


def _read(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, YAMLError) as error:
        raise DataError(f"cfg_path: {path}: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"cfg_path: {path}: a mapping of the dataset's arguments is expected")
    return {str(key): value for key, value in found.items()}
