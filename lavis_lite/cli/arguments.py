"""The arguments of caption, match, search and answer, and of push. Imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

IMAGES = "paths, folders (with what is below them), glob patterns or URLs"

# What `add_subparsers` of argparse returns.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_commands(commands: Commands) -> None:
    """Add the four commands to ``lavis-lite``'s subparsers."""
    caption = _command(commands, "caption", "describe images")
    caption.add_argument("--num-captions", type=_count, metavar="N", help="captions per image")
    caption.add_argument("--num-beams", type=_count, metavar="N", help="beams; 1 is greedy")
    caption.add_argument("--sample", action="store_true", help="draw captions (nucleus sampling)")
    caption.add_argument(
        "--top-p", type=_share, metavar="P", help="probability mass to draw from, with --sample"
    )
    caption.add_argument("--max-length", type=_count, metavar="N", help="most tokens")
    caption.add_argument("--min-length", type=_count, metavar="N", help="fewest tokens")
    caption.add_argument(
        "--seed", type=_whole, metavar="N", help="of captions drawn with --sample (default: 0)"
    )
    files = caption.add_argument_group("files beside the images")
    files.add_argument(
        "--sidecar", metavar=".EXT", help="write a.txt beside a.jpg for .txt, a caption per line"
    )
    files.add_argument(
        "--existing",
        choices=("skip", "overwrite", "append"),
        help="what to do with sidecars that are there (default: skip, so that a run resumes)",
    )
    files.add_argument("--csv", metavar="FILE", help="also a table: image, caption, problem")
    files.add_argument("--prefix", metavar="TEXT", help="put before each caption, as it is")
    files.add_argument("--suffix", metavar="TEXT", help="put after each caption, as it is")

    match = _command(commands, "match", "tell how well texts fit images")
    _add_texts(match, "--text", "a text; give several by repeating it")
    _add_overlay(match)

    search = _command(commands, "search", "find the images that fit a text")
    _add_texts(search, "--text", "what to look for; give several by repeating it")
    search.add_argument(
        "--top", type=_count, default=5, metavar="N", help="images per text (default: 5)"
    )
    search.add_argument(
        "--rerank",
        type=_count,
        default=32,
        metavar="N",
        help="images per text, the nearest by embedding, that are looked at closely (default: 32)",
    )
    _add_overlay(search)

    answer = _command(commands, "answer", "answer questions about images")
    _add_texts(answer, "--question", "a question; give several by repeating it")
    answer.add_argument(
        "--answers",
        metavar="FILE",
        help="choose from the answers in this file, one per line (default: write one)",
    )


def add_push(commands: Commands) -> None:
    """Add ``push`` to ``lavis-lite``'s subparsers."""
    parser = commands.add_parser("push", help="publish a model on the hub")
    parser.set_defaults(command=_push)
    parser.add_argument("folder", help="of save_pretrained, or the output folder of a run")
    parser.add_argument("repository", help="owner/name; made if it is not there")
    parser.add_argument("--private", action="store_true", help="make it private, if it is made")
    parser.add_argument("--revision", metavar="BRANCH", help="made if it is not there")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")


def _push(arguments: argparse.Namespace) -> int:
    from lavis_lite.cli import push

    done = push.push(
        arguments.folder,
        arguments.repository,
        private=arguments.private or None,
        revision=arguments.revision,
        message=arguments.message,
    )
    print(done)
    return 0


def _command(commands: Commands, name: str, help: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=f"{help.capitalize()}.")
    parser.set_defaults(command=_run, task=name)
    parser.add_argument("images", nargs="+", metavar="IMAGES", help=IMAGES)
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="NAME", help="a registered model; `list` names them")
    model.add_argument(
        "--type", metavar="TYPE", help="one of its types, like scenes: works offline"
    )
    model.add_argument(
        "--checkpoint",
        metavar="SOURCE",
        help="a folder of save_pretrained or of a run, or weights of --model",
    )
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps")
    model.add_argument(
        "--dtype",
        choices=("fp32", "bf16", "fp16"),
        help="format of the weights; bf16 takes half the memory (default: as the model has them)",
    )
    model.add_argument(
        "--exif", action="store_true", help="turn photographs as their EXIF orientation says"
    )
    model.add_argument("--batch-size", type=_count, default=16, metavar="N", help="default: 16")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--format",
        choices=("jsonl", "table"),
        help="default: a table on a terminal, else an object per line",
    )
    output.add_argument("--out", metavar="FILE", help="default: standard output")
    output.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    return parser


def _add_texts(parser: argparse.ArgumentParser, option: str, help: str) -> None:
    parser.add_argument(
        option,
        action="append",
        required=True,
        type=_not_empty,
        dest="texts",
        metavar="TEXT",
        help=help,
    )


def _add_overlay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overlay",
        type=_not_empty,
        metavar="FOLDER",
        help="also write pictures of where each text was found",
    )


def _not_empty(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number is expected, not {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {number}")
    return number


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number is expected, not {text!r}") from None
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"above 0, at most 1, not {text}")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number is expected, not {text!r}") from None


def _run(arguments: argparse.Namespace) -> int:
    from lavis_lite.cli import command

    run: Callable[[argparse.Namespace], int] = command.run
    return run(arguments)
