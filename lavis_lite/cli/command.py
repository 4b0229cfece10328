"""Runs one of the commands: images in, rows out, what could not be read told at the end."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lavis_lite.cli import tasks
from lavis_lite.cli.images import Images
from lavis_lite.cli.output import opened
from lavis_lite.cli.sidecars import CaptionFiles
from lavis_lite.io.redaction import log_to_stderr
from lavis_lite.models.pipelines.session import open_session
from lavis_lite.runners.heap import keep_freed_memory

TASKS = {
    "caption": tasks.caption,
    "match": tasks.match,
    "search": tasks.search,
    "answer": tasks.answer,
}
SOME_UNREADABLE, INTERRUPTED = 1, 130


def run(arguments: Namespace) -> int:
    """Run the command; returns 0, 1 if some images could not be read, 130 if interrupted."""
    log_to_stderr(logging.WARNING)
    images = Images(arguments.images, arguments.exif)
    if arguments.task == "answer":  # before a model is loaded, or fetched
        arguments.answer_list = tasks.read_answers(arguments.answers)
    keep_freed_memory()
    files = None
    if arguments.task == "caption" and (arguments.sidecar or arguments.csv or arguments.existing):
        files = CaptionFiles(images, arguments)
    session = open_session(
        arguments.task,
        arguments.model,
        arguments.type,
        arguments.checkpoint,
        arguments.device,
        arguments.dtype,
    )
    task, code = files.caption if files else TASKS[arguments.task], 0
    bar = tqdm(total=len(images.names), unit="image", file=sys.stderr, disable=None, leave=False)
    quiet = bool(files and files.sidecars and not (arguments.out or arguments.format))
    with opened(arguments.out, arguments.format) as rows, bar, logging_redirect_tqdm():
        try:
            with torch.no_grad():
                for row in task(session, images, arguments, bar.update):
                    if not quiet:  # they are in files beside the images
                        rows.write(row)
        except KeyboardInterrupt:  # what was found so far is kept
            code = INTERRUPTED
        finally:
            if files:
                files.close()
    report = files.report() if files and files.sidecars else images.report()
    if report:
        sys.stderr.write(f"{report}\n")
    if images.set_aside() or images.left_out:
        code = code or SOME_UNREADABLE
    return code
