"""A registered dataset by its name, as LAVIS's users ask for it."""

from __future__ import annotations

from typing import Any

from lavis_lite import registry
from lavis_lite.errors import ConfigError


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
        name: a registered dataset.
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
    arguments = {**_read(cfg_path), **({"images": vis_path} if vis_path else {}), **arguments}
    splits = getattr(registry.get("dataset", name), "splits", None)
    if not splits or "split" in arguments:
        split = arguments.get("split", "train")
        return {split: registry.build("dataset", {"name": name, **arguments})}
    return {
        split: registry.build("dataset", {"name": name, "split": split, **arguments})
        for split in splits
    }


def _read(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    from omegaconf import OmegaConf

    return dict(OmegaConf.to_container(OmegaConf.load(path), resolve=True))  # type: ignore[arg-type]
