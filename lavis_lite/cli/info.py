"""Texts of ``lavis-lite info`` and ``lavis-lite env``."""

from __future__ import annotations

import inspect
import platform
import sys
import textwrap
from typing import Any

import lavis_lite
from lavis_lite import registry
from lavis_lite.errors import CheckpointError, ConfigError, DownloadError, UnknownName, suggest
from lavis_lite.io.packages import torchvision_problem, version
from lavis_lite.registry import cards, weight_cards
from lavis_lite.registry.capabilities import members_of

CHECKPOINTS = "checkpoints"  # stands for all cards of released weights
USER_ERRORS = (ConfigError, UnknownName, CheckpointError, DownloadError)
PACKAGES = ("lavis_lite", "torch", "torchvision", "timm", "transformers", "fvcore", "iopath")


def about(name: str, kind: str | None = None) -> str:
    """Return the text that ``lavis-lite info`` prints.

    A kind has its contract; a registered name its place of definition, arguments and types; a
    released file its card; ``checkpoints`` the cards of all released files.

    Raises:
        UnknownName: none of these; the message lists the nearest.
    """
    if kind is None and name in registry.kinds():
        text = f"{name}: {inspect.cleandoc(registry.kinds()[name])}"
        return f"{text}\n\n{_capabilities()}" if name == "model" else text
    if kind is None and name == CHECKPOINTS:
        return "\n\n".join(_weights(card) for card in weight_cards.weight_cards().values())
    if kind is None and name in weight_cards.weight_cards():
        return _weights(weight_cards.weight_card(name))
    base = name.partition(".")[0] if kind in (None, "model") else name
    kinds = [k for k in ([kind] if kind else registry.kinds()) if _known(k, name)]
    if not kinds and _known("model", base):
        return _model(base, name.partition(".")[2])
    if not kinds:
        every = [n for k in registry.kinds() for n in registry.names(k)]
        every += [CHECKPOINTS, *weight_cards.weight_cards()]
        raise UnknownName(f"nothing is registered as {name!r}.{suggest(name, every)}")
    return "\n\n".join(_model(name) if k == "model" else _component(k, name) for k in kinds)


def _capabilities() -> str:
    """List the capabilities that a model may have, each with its own members."""
    from lavis_lite.modules.interfaces import CAPABILITIES

    lines = ["Capabilities:"]
    for protocol in CAPABILITIES:
        more = [base.__name__ for base in protocol.__bases__ if base in CAPABILITIES]
        also = f" (and {', '.join(more)})" if more else ""
        lines += ["", f"{protocol.__name__}{also}: {inspect.getdoc(protocol)}"]
        for name in members_of([protocol]):
            member = vars(protocol).get(name)
            if inspect.isfunction(member):
                taken = ", ".join([*inspect.signature(member).parameters][1:])
                lines.append(f"  {name}({taken}): {inspect.getdoc(member)}")
            elif isinstance(member, property):
                lines.append(f"  {name}: {inspect.getdoc(member)}")
            elif name in vars(protocol).get("__annotations__", {}):
                lines.append(f"  {name}: {vars(protocol)['__annotations__'][name]}")
    return "\n".join(lines)


def _known(kind: str, name: str) -> bool:
    return registry.problem(kind, name) is None


def _component(kind: str, name: str) -> str:
    entry = registry.entry(kind, name)
    lines = [f"{name} ({kind}), defined at {entry.where}"]
    if text := inspect.getdoc(entry.definition.builder):
        lines += ["", text]
    arguments = entry.arguments
    lines += ["", "arguments: " + (", ".join(_spell(p) for p in arguments.values()) or "none")]
    if shared := entry.shared_arguments:
        lines += ["", f"arguments of several {kind}s:"]
        for key, argument in shared.items():
            lines += _paragraph(f"{key}: {argument.text}")
    needed = [p for p in arguments.values() if p.default is p.empty]
    if kind in ("vision_encoder", "text_backbone") and not name.endswith("/*") and not needed:
        lines.insert(1, _size_of(kind, name))
    return "\n".join(lines)


def _size_of(kind: str, name: str) -> str:
    """Parameters and multiply-adds of a tower with its default arguments."""
    from lavis_lite.cli import sizes

    try:
        return sizes.of_tower(kind, name)
    except USER_ERRORS as error:
        return f"cannot be built here: {str(error).splitlines()[0]}"


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="      ")


def _spell(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return f"{parameter.name} (required)"
    return f"{parameter.name}={parameter.default!r}"


def _model(name: str, chosen: str | None = None) -> str:
    card = cards.card(name)
    about = _component("model", name).split("\n")
    lines = [*about, "", "types (the first is the default):"]
    if type := chosen or cards.default_type(name):
        from lavis_lite.cli import sizes

        try:
            lines.insert(1, f"{type}: {sizes.of_model(name, type)}")
        except USER_ERRORS as error:
            lines.insert(1, f"{type}: cannot be built here: {str(error).splitlines()[0]}")
    for type, entry in card["types"].items():
        weights = (entry or {}).get("checkpoint", "random weights")
        lines.append(f"  {type}: {weights}")
        known = [c for c in weight_cards.weight_cards().values() if c.url == weights]
        lines += [f"    {line}" for c in known for line in _facts(c)]
    others = [
        c.file
        for c in weight_cards.weight_cards().values()
        if name in (*c.fills, *c.starts) and c.types(name)
        if not any(spelled.startswith(f"{name}.") for spelled in c.released_as)
    ]
    lines += ["", f"other released files that load: {', '.join(others)}"] if others else []
    return "\n".join(lines)


def _weights(card: weight_cards.WeightCard) -> str:
    """The card of a released file."""
    lines = [card.file, f"  {card.url}", *(f"  {fact}" for fact in _facts(card))]
    lines += [f"  holds: {card.holds}", f"  sha256: {card.sha256 or 'noted at the first download'}"]
    for what, types in (
        ("weights of", card.released_as),
        ("fills", card.types(*card.fills)),
        ("starts, to be trained", card.types(*card.starts)),
    ):
        lines += [f"  {what}: {', '.join(types)}"] if types else []
    return "\n".join(lines)


def _facts(card: weight_cards.WeightCard) -> list[str]:
    """Task, size, licence and published figures, a line each."""
    figures = [
        f"{data}: {', '.join(f'{metric} {value:g}' for metric, value in found.items())}"
        for data, found in card.results.items()
    ]
    size = f"{card.size}, images of {card.image_size} pixels, licence {card.licence}"
    return [card.trained_for, size, *figures, f"({card.source})"]


def environment_report() -> str:
    """Versions, devices, cache folder, broken plug-ins, a diagnosis of torch and torchvision."""
    rows: list[tuple[str, Any]] = [
        ("python", sys.version.split()[0]),
        ("platform", platform.platform()),
        *((package, _version(package)) for package in PACKAGES),
        ("device", _devices()),
        ("torchvision works", f"no: {problem}" if (problem := torchvision_problem()) else "yes"),
        ("cache", _cache()),
    ]
    cards.list_models()
    rows += [("cannot be used", f"{m}: {why}") for m, why in registry.index.failures.items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _version(package: str) -> str:
    own = lavis_lite.__version__ if package == "lavis_lite" else "not installed"
    return version(package) or own


def _devices() -> str:
    try:
        import torch
    except Exception as error:
        return f"torch cannot be imported ({error})"
    if torch.cuda.is_available():
        return ", ".join(
            torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        )
    return f"cpu, {torch.get_num_threads()} threads"


def _cache() -> str:
    from lavis_lite.io import paths

    return str(paths.cache_dir())
