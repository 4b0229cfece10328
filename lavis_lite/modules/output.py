"""The outputs of models: losses and features by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lavis_lite.errors import ConfigError, UnknownName, listed, suggest
from lavis_lite.modules.samples import kind_of

Samples = dict[str, Any]


class NoSuchOutput(UnknownName, AttributeError, KeyError):
    """A name that an output does not have, asked for as an attribute or by key."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = list(dict.fromkeys(known))
        super().__init__(
            f"no {name!r} in this output; it has {listed(names)}.{suggest(name, names)}"
        )

    def __str__(self) -> str:  # KeyError's would be quoted
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, self.args


def _again(message: str) -> NoSuchOutput:
    error = NoSuchOutput("", ())
    error.args = (message,)
    return error


class Named:
    """Values by name, as attributes or by key; a value that was not computed is None.

    Args:
        values: name -> value.
        known: names of what is computed at times.

    Raises:
        NoSuchOutput: when a name is asked for that is neither there nor known.
    """

    def __init__(self, values: dict[str, Any], known: Iterable[str] = ()) -> None:
        self._values = values
        self._known = frozenset(known)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # while it is copied or unpickled
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        if name not in self._values and name not in self._known:
            raise NoSuchOutput(name, [*self._values, *sorted(self._known)])
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

    Raises:
        ConfigError: a loss that is not one number.
        NoSuchOutput: when a name is asked for that is not there.
    """

    def __init__(self, losses: dict[str, Tensor], **extras: object) -> None:
        for name, loss in losses.items():
            if loss.ndim:
                raise ConfigError(
                    f"losses.{name}: gives {kind_of(loss)}; a loss is one number (), such as the "
                    "mean over the rows"
                )
        self.losses = losses
        self.loss = torch.stack(list(losses.values())).sum() if losses else None
        self._extras = extras

    def __getattr__(self, name: str) -> Any:
        if name.startswith("loss_") and name[5:] in self.__dict__.get("losses", {}):
            return self.losses[name[5:]]
        if name in (extras := self.__dict__.get("_extras", {})):
            return extras[name]
        if name.startswith("__"):
            raise AttributeError(name)
        raise NoSuchOutput(name, self.keys())

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise NoSuchOutput(name, self.keys())
        return getattr(self, name)

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
