"""The command line ``lavis-lite``: a file for what each command does."""

from lavis_lite.cli.program import main

__all__ = ["main"]
