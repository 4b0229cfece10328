"""METEOR and SPICE, which exist as Java programs only; pycocoevalcap brings and calls them."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from lavis_lite import distributed
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.metrics.captioning.words import split_words

log = logging.getLogger(__name__)
NAMES = ("meteor", "spice")
_PACKAGE = "pycocoevalcap"
_METEOR = "meteor-1.5.jar"


def java_scores(
    names: Iterable[str], captions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], dict[str, str]]:
    """METEOR and SPICE, in [0, 1], of one caption per image; computed by the main process alone.

    Args:
        names: which of ``NAMES``.
        captions: one per image.
        references: of each image, one or more.

    Returns:
        Figures by name, and of each that could not be computed why.
    """
    found: dict[str, float] = {}
    missing: dict[str, str] = {}
    if distributed.is_main():
        words = {n: [" ".join(split_words(caption))] for n, caption in enumerate(captions)}
        texts = {n: [" ".join(split_words(t)) for t in row] for n, row in enumerate(references)}
        for name in names:
            if reason := why_not(name):
                missing[name] = reason
                continue
            try:
                found[name] = _score(name, texts, words)
            except Exception as error:  # of a program that we know nothing about
                missing[name] = f"{name} failed: {type(error).__name__}: {error}"
        for name, reason in missing.items():
            log.warning("caption: %s is n/a: %s", name, reason)
    return distributed.all_gather_object((found, missing))[0]


def check_names(names: Iterable[str]) -> None:
    """Refuse a figure that Java does not give.

    Raises:
        ConfigError: with the nearest of ``NAMES``.
    """
    for name in names:
        if name not in NAMES:
            raise ConfigError(
                f"caption.java: {name!r}.{suggest(name, NAMES)} Known: {', '.join(NAMES)}"
            )


def why_not(name: str) -> str | None:
    """Say what a figure lacks on this machine and how to get it; None where nothing is missing."""
    if importlib.util.find_spec(_PACKAGE) is None:
        return f"{_PACKAGE} is not installed; pip install 'lavis_lite[metrics]'"
    if shutil.which("java") is None:
        return "there is no java on the PATH; any Java runtime from version 8 on will do"
    if name == "spice":
        found = [jar for one in _folders("spice") for jar in one.glob("lib/stanford-corenlp-*.jar")]
        if not found:
            return (
                "Stanford's CoreNLP is not there (400 MB); fetch it with: python -c 'from "
                f"{_PACKAGE}.spice.get_stanford_models import get_stanford_models as get; get()'"
            )
    return None


def _score(name: str, texts: dict[int, list[str]], words: dict[int, list[str]]) -> float:
    if name == "meteor":
        return _meteor([words[n][0] for n in words], [texts[n] for n in words])
    from pycocoevalcap.spice.spice import Spice

    score, _ = Spice().compute_score(texts, words)
    return float(score)


def _meteor(captions: list[str], references: list[list[str]]) -> float:
    """METEOR 1.5 by the program that pycocoevalcap brings; its own caller hangs where it fails."""
    command = ["java", "-jar", "-Xmx2G", _METEOR, "-", "-", "-stdio", "-l", "en", "-norm"]
    process = subprocess.Popen(
        command, cwd=_folders("meteor")[0], text=True, encoding="utf-8",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            counts = []
            for caption, texts in zip(captions, references, strict=True):
                line = " ||| ".join(["SCORE", *texts, caption])
                process.stdin.write(f"{line}\n")
                process.stdin.flush()
                counts.append(_line(process.stdout))
            process.stdin.write(" ||| ".join(["EVAL", *counts]) + "\n")
            process.stdin.flush()
            # A score for each caption, and at last that of all.
            return [float(_line(process.stdout)) for _ in range(len(counts) + 1)][-1]
        finally:
            process.kill()


def _line(stream: IO[str]) -> str:
    line = stream.readline().strip()
    if not line:
        raise EOFError("the program ended without an answer")
    return line


def _folders(part: str) -> list[Path]:
    spec = importlib.util.find_spec(_PACKAGE)
    return [Path(one, part) for one in (spec.submodule_search_locations if spec else None) or []]
