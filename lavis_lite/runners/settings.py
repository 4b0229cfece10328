"""The settings that decide a run's results, and the differences between two configs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any

from lavis_lite.config import to_dict
from lavis_lite.io.redaction import redacted
from lavis_lite.registry.component import ModelComponent

Settings = dict[str, Any]

# Changing these leaves losses, weights and figures as they are, in every runner's config. One with
# more of them names these in ``without_effect``, a class variable of its Config.
WITHOUT_EFFECT = (
    "plugins",  # what they register is named elsewhere; that a file changes inside cannot be seen
    "data.num_workers",
    "data.vision_tokens.folder",
    "run.output_dir",
    "run.log_every",
    "run.eval_every",
    "run.checkpoint_every",
    "run.keep_last",
    "run.keep_best",
    "run.device",
    "run.gradient_checkpointing",
    "run.parallel",
    "run.num_threads",
    "run.keep_memory",
    "run.loggers",
    "run.max_bad_fraction",
    "run.max_skipped_steps",
    "run.on_disk_full",
)
# These change what is measured, not what is learnt.
EVALUATION = (
    "evaluate",
    "data.processors.image.eval",
    "data.processors.text.eval",
    "run.eval_weights",
)
BATCH = "data.batch_size"


def settings(config: object, processes: int = 1) -> Settings:
    """Every setting of a config by its dotted key, as JSON values, without secrets.

    The model's preset is written out, so that a preset that changes shows; the batch is that of
    all processes together, so that one process may take over what two began.
    """
    flat = dict(flatten(to_dict(config)))
    model = getattr(config, "model", None)
    if isinstance(model, ModelComponent) and model.args:
        flat |= dict(flatten(redacted(model.args), "model"))
    if BATCH in flat:
        flat[f"{BATCH} of all processes"] = flat.pop(BATCH) * processes
    return json.loads(json.dumps(flat, default=str))


def flatten(tree: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf: ``data.train[0].split``; empty branches are leaves."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list | tuple) and tree:
        for index, value in enumerate(tree):
            yield from flatten(value, f"{prefix}[{index}]")
    else:
        yield prefix, tree


def at_default(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of values that equal the defaults of the config's schema.

    A release may bring new options; at their defaults they leave a run of before as it was.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        where = f"{prefix}.{field.name}" if prefix else field.name
        if _has_default(field, value):
            yield from (key for key, _ in flatten(to_dict(value), where))
        elif dataclasses.is_dataclass(value):
            yield from at_default(value, where)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if dataclasses.is_dataclass(item):
                    yield from at_default(item, f"{where}[{index}]")


def without_effect(config: object) -> tuple[str, ...]:
    """Return the dotted keys, of values or sections, that change no result of a config."""
    return (*WITHOUT_EFFECT, *getattr(config, "without_effect", ()))


def named_in(key: str, names: Collection[str]) -> bool:
    """Tell if a dotted key, or a section around it, is among ``names``."""
    return any(key == name or key.startswith((f"{name}.", f"{name}[")) for name in names)


def differences(
    old: Settings,
    new: Settings,
    *,
    evaluation: bool = True,
    unused: Collection[str] = (),
    ignored: Collection[str] = WITHOUT_EFFECT,
) -> list[str]:
    """List the differences that matter, as ``optim.lr: 0.0003 is now 0.0001``; null is like absent.

    Args:
        old: the settings of before.
        new: those of now.
        evaluation: whether what is evaluated counts.
        unused: keys of ``new`` that ``old`` may lack, see `at_default`.
        ignored: keys that do not count, see `without_effect`.
    """
    missing = object()
    lines = []
    old = redacted(old)  # earlier releases wrote secrets down
    for key in sorted({**old, **new}):
        before, now = old.get(key, missing), new.get(key, missing)
        if before == now or not _counts(key, evaluation, ignored):
            continue
        came_later = before is missing and key in unused
        if came_later or {id(before), id(now)} == {id(missing), id(None)}:
            continue
        if before is missing:
            lines.append(f"{key}: {now!r} is new")
        elif now is missing:
            lines.append(f"{key}: {before!r} is gone")
        else:
            lines.append(f"{key}: {before!r} is now {now!r}")
    return lines


def _has_default(field: dataclasses.Field, value: object) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return field.default is not dataclasses.MISSING and bool(value == field.default)


def fingerprint(
    values: Settings,
    *parts: str,
    evaluation: bool = False,
    ignored: Collection[str] = WITHOUT_EFFECT,
) -> str:
    """A short hash of all settings that have an effect on what is learnt, and of further parts.

    Args:
        values: the settings.
        parts: more to be told apart by.
        evaluation: whether what is evaluated counts too.
        ignored: keys that do not count, see `without_effect`.
    """
    effective = {k: v for k, v in values.items() if _counts(k, evaluation, ignored)}
    text = json.dumps([effective, parts], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _counts(key: str, evaluation: bool, ignored: Collection[str]) -> bool:
    return not named_in(key, ignored if evaluation else (*ignored, *EVALUATION))
