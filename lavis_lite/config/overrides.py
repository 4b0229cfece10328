"""Overrides of a config: ``key=value`` of a command line, and dotted keys of another config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lavis_lite.errors import ConfigError
from lavis_lite.io.redaction import REDACTED, is_secret, redacted_word
from lavis_lite.registry.component import merge

_KEY = re.compile(r"([^.\[\]=]+)|\[(\d+)\]")
_LONGEST_TEXT = 4096  # of a text that is no YAML, such as a path
_WHOLE_KEY = re.compile(r"[^.\[\]=]+(\[\d+\]|\.[^.\[\]=]+)*")


def parse_overrides(overrides: Sequence[str]) -> dict[Any, Any]:
    """Parse overrides, ``["a.b[0].c=1e-4", ...]``, to one tree; later ones win.

    Raises:
        ConfigError: an override that is not ``key=value``, or that turns an earlier value into a
            section or an earlier section into a value, which would lose the earlier one.
    """
    tree: dict[Any, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not _WHOLE_KEY.fullmatch(key):
            raise ConfigError(f"override {_shown(override)} is not key=value (like optim.lr=1e-4)")
        tree = _with(tree, key, _value(text, override), f"override {_shown(override)}")
    return tree


def typed_values(overrides: Sequence[str]) -> dict[tuple[str | int, ...], str]:
    """Key path -> the text of each override as it was typed, for keys that take a text."""
    pairs = (override.partition("=") for override in overrides)
    return {
        tuple(name or int(index) for name, index in _KEY.findall(key)): text
        for key, _, text in pairs
    }


def from_dotted(values: Mapping[str, Any]) -> dict[Any, Any]:
    """Convert ``{"a.b[0]": value}`` to a tree, for overrides in a config."""
    tree: dict[Any, Any] = {}
    for key, value in values.items():
        if not _WHOLE_KEY.fullmatch(str(key)):
            raise ConfigError(f"{key!r} is not a dotted key (like optim.lr)")
        tree = _with(tree, str(key), value, repr(key))
    return tree


def _with(tree: dict[Any, Any], key: str, value: object, what: str) -> dict[Any, Any]:
    """Return ``tree`` with ``value`` at a dotted key; ``what`` names the override in errors."""
    path = [name or int(index) for name, index in _KEY.findall(key)]
    before: Any = tree
    spelled = ""
    for part in path:
        if not isinstance(before, dict | list | None):
            seen = REDACTED if is_secret(spelled) else repr(before)
            raise ConfigError(f"{what}: an earlier override sets {spelled} to {seen}")
        before = before.get(part) if isinstance(before, dict) else None
        spelled += f"[{part}]" if isinstance(part, int) else f".{part}" if spelled else part
    if isinstance(before, dict) and not isinstance(value, dict | list | None):
        keys = ", ".join(f"{key}.{inner}" for inner in before)
        raise ConfigError(f"{what}: earlier overrides set {keys}; null takes the section away")
    nested = value
    for part in reversed(path):
        nested = {part: nested}
    return merge(tree, nested)


def _value(text: str, override: str) -> Any:
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore[index,call-overload]
        # YAML's comments and signs mean nothing on a command line: there, a text is what was typed.
        cut = isinstance(value, str | None) and "#" in text and text[0] not in "\"'"
        return text if cut else value
    except (YAMLError, ValueError, RecursionError) as error:
        if text[:1] not in "[{\"'!" and "\n" not in text and len(text) < _LONGEST_TEXT:
            return text
        reason, key = why_unreadable(error), override.partition("=")[0]
        if is_secret(key):  # the parser quotes what it cannot read
            reason = "cannot be read as YAML"
        raise ConfigError(
            f"override {_shown(override)}: {reason}. "
            f"A text that begins so is put in quotes of its own: \"{key}='...'\""
        ) from None


def why_unreadable(error: Exception) -> str:
    """Say why a text is not a config: our words, the line if known, the parser's words."""
    if isinstance(error, RecursionError):
        return "cannot be read as YAML: nested too deeply"
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f" (line {mark.line + 1})"
    said = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return f"cannot be read as YAML{where}: {said[:500]}"


def _shown(override: str) -> str:
    """Return an override as errors quote it: not too long, and without secrets."""
    return repr(redacted_word(override)[:200])
