"""HTML that is escaped by construction: strings are text, only ``Html`` is markup."""

from __future__ import annotations

import html
from collections.abc import Iterable

Child = object  # Html as it is, None left out, lists one after the other, all else as escaped text

_VOID = frozenset(["img", "br", "meta"])


class Html(str):
    """Markup. Every other string is text, whoever wrote it, and is escaped."""

    __slots__ = ()


def tag(name: str, /, *children: Child, **attributes: object) -> Html:
    """An element. ``class_`` and ``for_`` lose their underscore, others become hyphens.

    An attribute of None or False is left out, one of True stands without a value.
    """
    spelled = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is None or value is False:
            continue
        quoted = html.escape(_printable(str(value)))
        spelled.append(f" {key}" if value is True else f' {key}="{quoted}"')
    opening = f"<{name}{''.join(spelled)}>"
    if name in _VOID:
        assert not children, f"<{name}> has no content"
        return Html(opening)
    return Html(f"{opening}{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Children one after the other, text escaped."""
    return Html("".join(_render(child) for child in children))


def _render(child: Child) -> str:
    if isinstance(child, Html):
        return str(child)
    if child is None:
        return ""
    if isinstance(child, Iterable) and not isinstance(child, str | bytes):
        return "".join(_render(item) for item in child)
    return html.escape(_printable(str(child)))


def _printable(text: str) -> str:
    """Without control characters and lone surrogates, which no HTML file may hold."""
    return "".join(
        character if character >= " " or character in "\n\t" else "\ufffd"
        for character in text.encode("utf-8", "replace").decode("utf-8")
    )
