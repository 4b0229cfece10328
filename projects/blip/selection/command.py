"""`lavis-lite select`, `export-selection` and `tabulate`: selections without a config file."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_lite.errors import ConfigError
from lavis_lite.io.redaction import log_to_stderr

_CONFIG = "blip/select"
_TERM = re.compile(r"\s*(?:(web|synthetic|all)\s*:)?\s*([\w.-]+)\s*(>=|<=)\s*(\S+)\s*")
_FORMATS = ("parquet", "recap", "webdataset", "huggingface", "datacomp", "keys", "sidecar")


def select(words: Sequence[str]) -> int:
    """Choose texts of a run, and export them if that is asked for; returns the exit code.

    Raises:
        ConfigError: options that make no rules.
    """
    arguments = select_arguments(words)
    log_to_stderr(logging.INFO)
    from lavis_lite import runners
    from lavis_lite.config.loading import load_and_bind

    values = values_of(arguments)
    runners.run(load_and_bind(arguments.cfg, arguments.overrides, values=values))
    folder = Path(values["run.output_dir"])
    sys.stdout.write(f"{folder}\n")
    if arguments.export:
        kind, target = arguments.export
        return _export(folder, kind, target, arguments)
    return 0


def select_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse the words of ``lavis-lite select``; overrides may stand on both sides of options."""
    return _select_parser().parse_intermixed_args(words)


def values_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the config keys that the options of ``select`` set.

    Rules are in the order: ``--kept``, ``--where``, ``--top``, ``--unique``.

    Raises:
        ConfigError: a term that is none.
    """
    rules: list[dict[str, Any]] = [{"kept": True}] if arguments.kept else []
    for said in arguments.where:
        rules += [_term(term) for term in re.split(r"\s+and\s+", said.strip())]
    for said in arguments.top:
        name, equals, share = said.partition("=")
        if not equals:
            raise ConfigError(f"--top {said!r}: write NAME=SHARE, like clip=0.3")
        rules.append({"score": name.strip(), "fraction": _number(share, f"--top {said!r}")})
    best = {} if arguments.by is None else {"best": arguments.by}
    rules += [{"duplicates": what, **best} for what in arguments.unique]
    folder = Path(arguments.folder)
    output = arguments.out or folder.with_name(f"{folder.name}_selection")
    values: dict[str, Any] = {"data.records": str(folder), "run.output_dir": str(output)}
    if arguments.cfg == _CONFIG:
        # The run may be of any data: what the packaged config says of the scenes does not hold.
        values |= {"rules": rules, "data.label": None, "data.right": []}
    elif rules:
        values["rules"] = rules
    if arguments.keep is not None:
        values["keep"] = _keep(arguments.keep, arguments.by)
    return values


def _term(said: str) -> dict[str, Any]:
    found = _TERM.fullmatch(said)
    if found is None:
        raise ConfigError(
            f"--where {said!r}: write SCORE>=NUMBER or SCORE<=NUMBER, `and` between several, "
            "`web:` or `synthetic:` before a score for those texts alone"
        )
    of, name, sign, number = found.groups()
    rule: dict[str, Any] = {"score": name}
    rule["min" if sign == ">=" else "max"] = _number(number, f"--where {said!r}")
    return rule | ({"of": of} if of else {})


def _number(said: str, where: str) -> float:
    try:
        return float(said)
    except ValueError:
        raise ConfigError(f"{where}: {said!r} is no number") from None


def _keep(said: str, by: str | None) -> Any:
    """``best:2`` -> {best: 2}; with a score, that one tells the best."""
    name, colon, number = said.partition(":")
    if colon and not number.isdecimal():
        raise ConfigError(f"--keep {said!r}: how many is no number; write best:2")
    if by is None or name == "all":
        return {name: int(number)} if colon else name
    count = int(number) if colon else 1 if name == "best" else None
    return {name: count, "by": by}


def export(words: Sequence[str]) -> int:
    """Write a selection for another tool; returns the exit code."""
    arguments = _export_parser().parse_args(words)
    log_to_stderr(logging.INFO)
    return _export(arguments.selection, arguments.to, arguments.target, arguments)


def _export(selection: Path, kind: str, target: str, arguments: argparse.Namespace) -> int:
    from lavis_lite.projects.blip.selection.exports import Options, export

    names = ("overwrite", "shard_size", "license", "prefix", "suffix", "existing")
    options = Options(**{name: getattr(arguments, name) for name in names})
    number = export(selection, kind, target, options)
    sys.stdout.write(f"{target}: {number:,} written ({kind})\n")
    return 0


def tabulate(words: Sequence[str]) -> int:
    """Write the records of a finished run as tables; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="lavis-lite tabulate",
        description="Write a parquet table beside each shard's records of a CapFilt run.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="output folder of the run")
    parser.add_argument("--unfinished-ok", action="store_true", help="the shards that are done")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    arguments = parser.parse_args(words)
    from lavis_lite.projects.blip.capfilt.tabulate import tabulate as write

    for path in write(arguments.folder, arguments.unfinished_ok):
        sys.stdout.write(f"{path}\n")
    return 0


def _select_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lavis-lite select",
        description="Choose texts of a CapFilt run by their scores; no model is loaded.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="output folder of a run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the config")
    parser.add_argument("--out", metavar="FOLDER", help="default: FOLDER_selection")
    parser.add_argument("--cfg", default=_CONFIG, help="rules from a config; options replace them")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="TERMS",
        help='thresholds: "itm>=0.6 and web:clip>=0.25"',
    )
    parser.add_argument(
        "--top", action="append", default=[], metavar="SCORE=SHARE", help="best share of the pool"
    )
    parser.add_argument(
        "--unique", action="append", default=[], choices=("images", "texts"), help="no duplicates"
    )
    parser.add_argument("--kept", action="store_true", help="only what the run's filter kept")
    parser.add_argument(
        "--keep", metavar="HOW", help="all, best, best:N, synthetic_if_web_failed[:N]"
    )
    parser.add_argument("--by", metavar="SCORE", help="tells the best")
    parser.add_argument(
        "--export", nargs=2, metavar=("KIND", "TARGET"), help=f"also: {', '.join(_FORMATS)}"
    )
    _add_options(parser)
    return parser


def _export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lavis-lite export-selection", description="Write a selection for another tool."
    )
    parser.add_argument("selection", metavar="SELECTION", help="folder of `lavis-lite select`")
    parser.add_argument("target", metavar="TARGET", help="file or folder to write")
    parser.add_argument("--to", required=True, choices=_FORMATS, help="the format")
    _add_options(parser)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace what TARGET has")
    parser.add_argument(
        "--shard-size", type=int, default=10_000, metavar="N", help="images in a shard, at most"
    )
    parser.add_argument("--license", default="unknown", help="of the source, for the card")
    parser.add_argument("--prefix", default="", help="before a sidecar's text")
    parser.add_argument("--suffix", default="", help="after a sidecar's text")
    parser.add_argument(
        "--existing",
        choices=("refuse", "skip", "overwrite", "append"),
        default="refuse",
        help="what happens to sidecars that are there (default: refuse)",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
