"""The outputs of models: losses and features by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Samples = dict[str, Any]


class Named:
    """Values by name, as attributes or by key; a value that was not computed is None.

    Args:
        values: name -> value.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._values.get(name)

    def __getitem__(self, name: str) -> Any:
        return self._values.get(name)

    def __repr__(self) -> str:
        return f"({', '.join(f'{name}={_brief(value)}' for name, value in self._values.items())})"

    def keys(self) -> list[str]:
        """Return the names of the values that were computed."""
        return list(self._values)


class ModelOutput:
    """The losses of one batch, by name and summed.

    ``output.loss`` is the sum; ``output.loss_itc`` or ``output["loss_itc"]`` one part. Extra named
    values (``sims``, ``intermediate_output``) are attributes as well, as LAVIS's users expect.

    Args:
        losses: name -> () loss in fp32.
        extras: further outputs of the model.
    """

    def __init__(self, losses: dict[str, Tensor], **extras: object) -> None:
        self.losses = losses
        self.loss = torch.stack(list(losses.values())).sum() if losses else None
        self._extras = extras

    def __getattr__(self, name: str) -> Any:
        if name.startswith("loss_") and name[5:] in self.__dict__.get("losses", {}):
            return self.losses[name[5:]]
        if name in (extras := self.__dict__.get("_extras", {})):
            return extras[name]
        raise AttributeError(f"no {name!r} in this output; it has {', '.join(self.keys())}")

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError as error:
            raise KeyError(str(error)) from None

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={_brief(self[name])}" for name in self.keys())
        return f"{type(self).__name__}({values})"

    def keys(self) -> list[str]:
        """Return the names of everything in the output."""
        return ["loss", *(f"loss_{name}" for name in self.losses), *self._extras]


def _brief(value: object) -> str:
    """Write a number by its value, another tensor by its shape."""
    if not isinstance(value, Tensor):
        return repr(value)
    return f"{value.item():.5g}" if value.ndim == 0 else f"tensor{tuple(value.shape)}"
