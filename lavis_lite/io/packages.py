"""Messages for a broken installation: torch and torchvision that do not fit each other.

timm and transformers import torchvision, and torchvision imports only beside the torch that it was
built for. Imports no torch.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager

from lavis_lite.errors import ConfigError

REMEDIES = (
    "Reinstall both (pip install --force-reinstall torch torchvision), or take the CPU builds of "
    "both from PyTorch's own index."
)


@contextmanager
def naming_torchvision() -> Iterator[None]:
    """Wrap an import that may import torchvision, at once or later.

    Raises:
        ConfigError: in place of any error that torchvision causes; with the remedies.
    """
    try:
        yield
    except Exception as error:  # torch's operators raise RuntimeError, its libraries OSError
        problem = torchvision_problem()
        if problem is None:
            raise
        raise ConfigError(f"{problem} `lavis-lite env` shows what is installed") from error


def torchvision_problem() -> str | None:
    """Say why torchvision cannot be imported, and the remedy; None if it can."""
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        if version("torchvision") is None:
            return f"torchvision is not installed ({error}). {REMEDIES}"
        return (
            f"torchvision cannot be imported ({error}). torch {version('torch')} and torchvision "
            f"{version('torchvision')} do not fit. {REMEDIES}"
        )
    return None


def version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
