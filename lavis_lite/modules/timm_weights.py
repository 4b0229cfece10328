"""timm's released weights where the network is switched off: those that are on this disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lavis_lite.errors import DownloadError
from lavis_lite.io.paths import cache_dir, offline


def without_network(name: str) -> dict[str, Any]:
    """What changes timm's pretrained config so that it opens a file in place of a socket.

    timm asks its hub without looking at our environment, and its hub's client looks at its own
    only when it is imported. Where the network is allowed, nothing changes.

    Args:
        name: timm's name of the model.

    Raises:
        DownloadError: offline, and the weights are not here; says where they are and where to put
            them.
    """
    import timm

    released = timm.models.get_pretrained_cfg(name) if offline() else None
    if released is None or not (released.hf_hub_id or released.url):
        return {}
    named = f"{released.architecture}.{released.tag}" if released.tag else released.architecture
    target = cache_dir() / "timm" / f"{named}.safetensors"
    file = target if target.is_file() else _kept(released)
    if file is None:
        hub = released.hf_hub_id
        address = f"https://huggingface.co/{hub}/resolve/main/model.safetensors"
        raise DownloadError(
            f"timm/{name}: its weights are not in the cache and the network is switched off by "
            f"the environment; fetch {address if hub else released.url} elsewhere and put it at "
            f"{target if hub else target.with_name(Path(str(released.url)).name)}"
        )
    return {"file": str(file), "custom_load": file.suffix == ".npz"}


def _kept(released: Any) -> Path | None:
    """The file in our cache, in that of the hub or in torch's."""
    import torch
    from huggingface_hub import try_to_load_from_cache

    if released.hf_hub_id:
        for file in ("model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(released.hf_hub_id, file)
            if isinstance(found, str):
                return Path(found)
    if released.url:
        base = Path(str(released.url)).name
        for path in (cache_dir() / "timm" / base, Path(torch.hub.get_dir(), "checkpoints", base)):
            if path.is_file():
                return path
    return None
