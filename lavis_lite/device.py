"""Which device a run uses."""

from __future__ import annotations

import torch

from lavis_lite.errors import ConfigError


def best_device() -> torch.device:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose(name: str, local_rank: int = 0, option: str = "run.device") -> torch.device:
    """The device that a config means.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` (this process's own), ``cuda:N`` or ``mps``.
        local_rank: this process's number on its machine.
        option: what errors call the setting.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        name = best_device().type
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"{option}: {name!r} is no device; auto, cpu, cuda, cuda:N, mps"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{option}: {name!r}, but CUDA is not available; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"{option}: {name!r}, but the last one is cuda:{torch.cuda.device_count() - 1}"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"{option}: 'mps', but it is not available; use auto or cpu")
    return torch.device("cuda", local_rank) if name == "cuda" else device
