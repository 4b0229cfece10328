"""The entries of a batch that losses and models read, or an error that names what is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lavis_lite.errors import ConfigError, DataError, listed, suggest

# Names under which other libraries and datasets have what a batch here calls otherwise.
ALIASES = {
    "image": ("images", "img", "imgs", "picture", "pixel_values"),
    "text_input": ("text", "texts", "caption", "captions", "question", "questions", "sentence"),
    "label": ("labels", "target", "targets", "class"),
}
# Names of a batch that mean something else, however alike they look.
KNOWN = {
    *("image", "image0", "image1", "image_id", "image_tokens", "text_input", "text_inputs"),
    "label",
    *("answer", "answers", "n_answers", "weight", "weights", "question_id", "index", "key"),
    *("prompt", "text_output"),
}


def needed(samples: object, name: str) -> Any:
    """Return the entry ``name`` of a batch.

    Raises:
        ConfigError: not a batch, or one without it; the message has the nearest key.
    """
    batch = as_samples(samples, name)
    value = batch.get(name)
    if value is None:
        raise ConfigError(f"samples have no {name!r}.{misspelt(batch, name)} They have: "
                          f"{listed(batch) or 'nothing'}")  # fmt: skip
    return value


def text_rows(samples: Mapping[str, Any]) -> list[list[str]] | None:
    """Return the K texts of each row of a batch, its ``text_inputs``; None where it has none.

    Raises:
        ConfigError: no lists of texts, or not as many in each row, or rows than ``text_input`` has.
    """
    rows = samples.get("text_inputs")
    if rows is None:
        return None
    good = isinstance(rows, list) and all(isinstance(row, list | tuple) and row for row in rows)
    if not good or not all(isinstance(text, str) for row in rows for text in row):
        raise ConfigError(
            f"text_inputs: {kind_of(rows)}; a list of texts of each row is expected, such as "
            '[["a dog", "a pet"], ["a cat", "a pet"]]'
        )
    if len({len(row) for row in rows}) > 1 or len(rows) != len(needed(samples, "text_input")):
        raise ConfigError(
            f"text_inputs: {[len(row) for row in rows]} texts; as many of each row of the batch "
            "are expected"
        )
    return [list(row) for row in rows]


def as_samples(samples: object, name: str = "image") -> Mapping[str, Any]:
    """Return what is a batch, a mapping from names to values, as it is.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(samples, Mapping):
        raise ConfigError(
            f"samples: {kind_of(samples)}; a dict is expected, such as {{{name!r}: ...}}"
        )
    return samples


def optional(samples: Mapping[str, Any], name: str) -> Any:
    """Return the entry ``name`` of a batch, None where there is none, nor one nearly of that name.

    Raises:
        ConfigError: an entry that is a misspelling of it.
    """
    value = samples.get(name)
    if value is None and (near := misspelt(samples, name)):
        raise ConfigError(f"samples have no {name!r}.{near}")
    return value


def misspelt(samples: Mapping[str, Any], name: str) -> str:
    """Return ``Did you mean 'text'?`` of a key that stands for ``name``, or an empty string."""
    alias = next((key for key in ALIASES.get(name, ()) if key in samples), None)
    others = [key for key in map(str, samples) if key not in KNOWN]
    return f" Did you mean {alias!r}?" if alias else suggest(name, others)


def labels_of(labels: object, num_rows: int, num_classes: int, device: torch.device) -> Tensor:
    """Return the classes of a batch of B rows as a tensor (B,) of integers.

    Args:
        labels: B whole numbers from 0, as a list, an array or a tensor.
        num_rows: B.
        num_classes: the model's, C.
        device: of the logits.

    Raises:
        DataError: other numbers, another count, or no numbers at all.
    """
    expected = f"{num_rows} whole numbers from 0 to {num_classes - 1}, one for each row"
    found = whole_numbers(labels, num_rows, "label", expected)
    # Numbers on a GPU are not looked at: that would wait for it at each step.
    known = found.device.type == "cpu" and num_rows
    if known and not 0 <= int(found.min()) <= int(found.max()) < num_classes:
        raise DataError(f"label: {found.tolist()!r:.60}; expected {expected}")
    return found.to(device)


def whole_numbers(values: object, num_rows: int, name: str, expected: str = "") -> Tensor:
    """Return whole numbers of a batch of B rows as a tensor (B,) of 64-bit integers.

    Raises:
        DataError: other numbers, another count, or no numbers at all.
    """
    expected = expected or f"{num_rows} whole numbers, one for each row"
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"{name}: {values!r:.60}; expected {expected}") from None
    if found.ndim == 2 and found.shape[1] == 1:  # a column, as tables have it
        found = found[:, 0]
    if found.ndim == 0 and num_rows == 1:
        found = found[None]
    if found.shape != (num_rows,) or found.dtype.is_complex:
        raise DataError(f"{name}: {kind_of(found)}; expected {expected}")
    whole = found.long()
    if (
        found.is_floating_point()
        and found.device.type == "cpu"
        and not torch.equal(found, whole.to(found))
    ):
        raise DataError(f"{name}: {found.tolist()!r:.60}; expected {expected}")
    return whole


def kind_of(value: object) -> str:
    """Return what a value is, as messages say it: its type, and itself where it is short."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array {tuple(value.shape)} of {value.dtype}"
    name = type(value).__name__
    article = "an" if name[0].lower() in "aeiou" else "a"
    if value is None:
        return "None"
    plain = isinstance(value, str | bytes | int | float)
    return f"{article} {name} ({value!r:.40})" if plain else f"{article} {name}"
