"""The command line: ``lavis-lite caption | match | search | answer | run | list | info | ...``.

Exit codes: 0 done, 1 some images could not be read, 2 an error of the user's (shown without
traceback), 3 nothing whole to resume from, 130 and 143 stopped by a signal after saving.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lavis_lite
from lavis_lite import registry
from lavis_lite.cli.arguments import Commands, add_commands, add_push
from lavis_lite.errors import CheckpointError, ConfigError, DataError, DownloadError, UnknownName
from lavis_lite.io.redaction import log_to_stderr, redacted_urls

LISTED = 'shell pattern, like "blip*"; `configs` lists the configs that `run --cfg` takes'
USER_ERRORS = (
    *(ConfigError, UnknownName, CheckpointError, DataError, DownloadError),
    FloatingPointError,  # a run whose loss is no number any more: its message says what to look at
)


def main(argv: Sequence[str] | None = None, program: str = "lavis-lite") -> int:
    """Parse a command line and run it; returns the exit code."""
    arguments = _parse(list(sys.argv[1:] if argv is None else argv), program)
    try:
        return arguments.command(arguments) or 0
    except USER_ERRORS as error:
        _show(error, getattr(arguments, "debug", False))
        return getattr(error, "exit_code", 2)
    except BrokenPipeError:  # the reader of a listing has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        _tell_torchrun(error)
        raise


def _tell_torchrun(error: Exception) -> None:
    """Leave the error where torchrun looks for it: its report then ends with ours.

    Without it the report says that nothing is known of a process that ended with an exit code.
    """
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        message = redacted_urls(f"{type(error).__name__}: {error}")
        # In this form torchrun takes it without warnings, and prints it in place of a traceback.
        shown = {"py_callstack": message, "timestamp": str(int(time.time()))}
        report = {"message": {"message": message, "extraInfo": shown}}
        with contextlib.suppress(OSError):  # the report is poorer then, and the error is the same
            Path(path).write_text(json.dumps(report))


def _show(error: Exception, debug: bool) -> None:
    _tell_torchrun(error)
    if debug:
        raise error
    # Every process of torchrun finds the same fault in a config; one report is enough.
    if os.environ.get("RANK", "0") == "0" or not isinstance(error, ConfigError | UnknownName):
        print(redacted_urls(f"{type(error).__name__}: {error}"), file=sys.stderr)


def run(arguments: argparse.Namespace) -> int:
    """``lavis-lite run``: load a config, check it in two stages, then run it."""
    from lavis_lite.config.loading import load_and_bind

    log_to_stderr(logging.INFO)
    loaded = load_and_bind(arguments.cfg, arguments.overrides)
    if arguments.dry_run:
        from lavis_lite.cli.dry_run import describe

        print(describe(loaded))
        return 0
    from lavis_lite import runners

    runners.run(loaded)
    # A run that imported no torch has no processes to part from.
    if (distributed := sys.modules.get("lavis_lite.distributed")) is not None:
        distributed.shutdown()
    return 0


def list_names(arguments: argparse.Namespace) -> int:
    """``lavis-lite list``: registered names, with the types of models."""
    from lavis_lite.registry import cards

    pattern, every = arguments.pattern, list(registry.kinds())
    if pattern == "configs" and arguments.kind is None:
        return _list_configs(arguments.json)
    kinds = [arguments.kind] if arguments.kind else every
    if arguments.kind is None and pattern != "*":
        # A pattern means models; other kinds only where no model fits.
        kinds = ["model"] if cards.list_models(pattern) else every
    listing = {
        kind: {n: cards.types(n) if kind == "model" else [] for n in registry.names(kind, pattern)}
        for kind in kinds
    }
    if pattern != "*":
        listing = {kind: names for kind, names in listing.items() if names}
    if arguments.json:
        print(json.dumps(listing, indent=2))
        return 0
    for kind, names in listing.items():
        if len(listing) > 1:
            print(f"{kind}:")
        for name, types in names.items():
            indent = "  " if len(listing) > 1 else ""
            print(f"{indent}{name}" + (f"  ({', '.join(types)})" if types else ""))
    if not any(listing.values()):
        print(f"nothing matches {pattern!r}{_near_kind(pattern)}", file=sys.stderr)
    for module, why in registry.index.failures.items():
        print(f"cannot be used: {module} ({why})", file=sys.stderr)
    return 0


def _near_kind(pattern: str) -> str:
    """Return a hint where a kind was given in the place of a pattern, or an empty string."""
    near = difflib.get_close_matches(pattern, registry.kinds(), n=1, cutoff=0.8)
    return f"; `lavis-lite list --kind {near[0]}` lists its names" if near else ""


def _list_configs(as_json: bool) -> int:
    """The configs that come with lavis_lite, by the names that ``--cfg`` takes."""
    from lavis_lite.config.files import config_root

    root = config_root()
    found = sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.yaml"))
    print(json.dumps({"configs": found}, indent=2) if as_json else "\n".join(found))
    return 0


def info(arguments: argparse.Namespace) -> int:
    """``lavis-lite info``: a kind's contract, or where a name is defined and what it takes."""
    from lavis_lite.cli.info import about

    print(about(arguments.name, arguments.kind))
    return 0


def convert(arguments: argparse.Namespace) -> int:
    """``lavis-lite convert``: weights from one format into another."""
    from lavis_lite.cli import convert

    done = convert.convert(
        arguments.source,
        arguments.target,
        model=arguments.model,
        to=arguments.to,
        overrides=arguments.overrides,
    )
    print(done)
    return 0


def export(arguments: argparse.Namespace) -> int:
    """``lavis-lite export``: a model as programs that run without its code."""
    from lavis_lite.cli.export import export

    print(
        export(
            arguments.model,
            arguments.out,
            format=arguments.format,
            type=arguments.type,
            checkpoint=arguments.checkpoint,
            int8=arguments.int8,
        )
    )
    return 0


def vocabulary(arguments: argparse.Namespace) -> int:
    """``lavis-lite vocabulary``: a vocabulary trained on texts."""
    from lavis_lite.cli import vocabulary

    done = vocabulary.vocabulary(
        arguments.texts,
        arguments.out,
        size=arguments.size,
        min_count=arguments.min_count,
        lowercase=not arguments.cased,
        column=arguments.column,
        split=arguments.split,
    )
    print(done)
    return 0


def data(arguments: argparse.Namespace) -> int:
    """``lavis-lite data list | info | unpack``: published datasets, where they are and go."""
    from lavis_lite.data.published import cards

    if arguments.action == "unpack":
        from lavis_lite.data.files.unpack import unpack

        for path in unpack(arguments.archive, arguments.folder):
            print(path)
        return 0
    if arguments.action == "list":
        width = max(map(len, cards.names()))
        for name in cards.names():
            print(f"{name:<{width}}  {cards.card(name).summary}")
        return 0
    if arguments.name in set(registry.names("dataset")) - set(cards.names()):
        from lavis_lite.cli.info import about  # made on the spot, or of one's own files

        print(about(arguments.name, "dataset"))
    else:
        print(cards.card(arguments.name))
    return 0


def new(arguments: argparse.Namespace) -> int:
    """``lavis-lite new project NAME``: write a package of one's own to start from."""
    from lavis_lite.cli.new_project import write_project

    root = Path(arguments.into) / arguments.name
    for path in write_project(arguments.name, Path(arguments.into)):
        print(path)
    print(f"\nNow: cd {root}, pip install -e ., lavis-lite run --cfg configs/train.yaml")
    return 0


def env(arguments: argparse.Namespace) -> int:
    """``lavis-lite env``: versions, devices, folders, and what is wrong with the installation."""
    from lavis_lite.cli.info import environment_report

    print(environment_report())
    return 0


def _parse(argv: list[str], program: str) -> argparse.Namespace:
    """Like ``parse_args``, but overrides may stand on both sides of options."""
    parser = _parser(program, argv)
    arguments, rest = parser.parse_known_args(argv)
    if hasattr(arguments, "call"):  # of a project: it reads its words itself
        arguments.debug = "--debug" in rest
        arguments.command = functools.partial(_call, arguments.call, rest)
        return arguments
    if any(word.startswith("-") or not hasattr(arguments, "overrides") for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}{_near_overrides(arguments, rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _near_overrides(arguments: argparse.Namespace, words: Sequence[str]) -> str:
    """Return a hint where overrides were written like options, or an empty string."""
    meant = [word.lstrip("-") for word in words if re.fullmatch(r"-+[A-Za-z_][^=]*=.*", word)]
    hint = f"; an override has no dashes: {' '.join(meant)}"
    return hint if meant and hasattr(arguments, "overrides") else ""


def _call(name: str, words: Sequence[str], arguments: argparse.Namespace) -> int:
    call = registry.index.command(name)
    assert call is not None  # it was listed when the command line was read
    return call(words)


def _parser(program: str, argv: Sequence[str]) -> argparse.ArgumentParser:
    if program == "run.py":
        parser = argparse.ArgumentParser(prog=program, description="Run a config.")
        _add_run(parser)
        return parser
    parser = argparse.ArgumentParser(prog=program, description=lavis_lite.__doc__.split("\n")[0])
    parser.add_argument("--version", action="version", version=lavis_lite.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="run a config: train, evaluate, bootstrap"))
    lister = _add(commands, "list", list_names, "list registered names and model types")
    lister.add_argument("pattern", nargs="?", default="*", help=LISTED)
    lister.add_argument("--kind", choices=list(registry.kinds()), help="default: models, or all")
    lister.add_argument("--json", action="store_true", help="for programs")
    informer = _add(commands, "info", info, "explain a kind or a registered name")
    informer.add_argument(
        "name",
        help='a kind ("loss"), a name ("blip_caption", "timm/resnet18"), a released file '
        '("model_base.pth"), or "checkpoints" for all of these',
    )
    informer.add_argument(
        "--kind", choices=list(registry.kinds()), help="where names are ambiguous"
    )
    _add_convert(_add(commands, "convert", convert, "write weights in another format"))
    add_push(commands)
    _add_export(_add(commands, "export", export, "write a model as ONNX or torch.export files"))
    add_commands(commands)
    _add_vocabulary(_add(commands, "vocabulary", vocabulary, "train a vocabulary on texts"))
    _add_data(_add(commands, "data", data, "published datasets: what to get, where to put it"))
    creator = _add(commands, "new", new, "write a package of your own to start from")
    creator.add_argument("what", choices=["project"])
    creator.add_argument("name", help="of the package, like acme_vision")
    creator.add_argument("--into", default=".", metavar="FOLDER", help="where (default: here)")
    _add(commands, "env", env, "show versions, devices, folders; diagnose the installation")
    if not set(argv[:1]) & set(commands.choices):  # reading them takes time
        for name, about in registry.index.commands().items():
            # It reads its own words: none of them is an option to this parser.
            own = commands.add_parser(name, help=about, add_help=False, prefix_chars="\0")
            own.set_defaults(call=name)
    return parser


def _add(
    commands: Commands, name: str, command: Callable[..., object], help: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help)
    parser.set_defaults(command=command)
    return parser


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a file, folder, URL or hub id; `released` with --model")
    parser.add_argument("target", help="a .safetensors file, or a folder")
    parser.add_argument("--model", metavar="NAME[.TYPE]", help="load them into this model first")
    formats = ("safetensors", "folder", "transformers")
    parser.add_argument("--to", choices=formats, default="safetensors")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="like image_size=480")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="NAME or NAME.TYPE of a registered model")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="must not exist")
    parser.add_argument("--format", default="onnx", help="onnx (default), or torch: torch.export")
    parser.add_argument("--type", metavar="TYPE", help="one of the model's types")
    parser.add_argument(
        "--checkpoint", metavar="SOURCE", help="a folder of save_pretrained or a run, or weights"
    )
    parser.add_argument(
        "--int8", action="store_true", help="weights of matrix products in 8 bits (onnx)"
    )


def _add_vocabulary(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "texts", nargs="+", metavar="TEXTS", help="a text per line, or annotation files"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where vocab.txt goes")
    parser.add_argument("--size", type=int, default=4000, help="most tokens (default: 4000)")
    parser.add_argument(
        "--min-count", type=int, default=2, help="fewest occurrences of a piece (default: 2)"
    )
    parser.add_argument("--cased", action="store_true", help="keep capitals and accents")
    parser.add_argument("--column", help="of the texts in annotation files")
    parser.add_argument("--split", help="only rows of annotation files with this split")


def _add_data(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, dest="action", metavar="ACTION")
    actions.add_parser("list", help="the datasets that have a card")
    informer = actions.add_parser("info", help="what to get of one, and where to put it")
    informer.add_argument("name", help='"coco_caption", or a name that LAVIS has for a dataset')
    unpacker = actions.add_parser("unpack", help="unpack an archive, refusing what is hostile")
    unpacker.add_argument("archive", help="a zip or tar, its path or URL")
    unpacker.add_argument("folder", help="where its files go, like data/coco/images")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=run)
    parser.add_argument(
        "--cfg", required=True, help="a config file, or one that comes with lavis_lite"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="like optim.lr=1e-4")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the config and the model's parameters; no run"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
