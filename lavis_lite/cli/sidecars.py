"""Captions as text files beside their images, and as a CSV file: whole, resumable, counted."""

from __future__ import annotations

import contextlib
import csv
import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from lavis_lite.cli import tasks
from lavis_lite.cli.images import Images
from lavis_lite.cli.output import Row
from lavis_lite.data.files.images import SUFFIXES
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.io.files import whole_file
from lavis_lite.io.paths import here
from lavis_lite.models.pipelines.session import Session

_NOT_UTF8 = "its sidecar is not UTF-8 text"


class Sidecars:
    """The text files of images: ``a.txt`` for ``a.jpg``, each written whole or not at all.

    Args:
        images: those that are captioned; two that would share a sidecar are told.
        suffix: of the sidecars, with its dot.
        existing: what is done where there is one: ``skip``, ``overwrite``, or ``append`` a line.

    Raises:
        ConfigError: a suffix that is none or an image's, or an image that is no file of this disk.

    Attributes:
        written: sidecars of this run.
        kept: those that were there and were left as they are.
    """

    def __init__(self, images: Images, suffix: str, existing: str) -> None:
        self.images, self.suffix, self.existing = images, suffix, existing
        self.written = self.kept = 0
        _check_suffix(suffix)
        self.owner: dict[str, str] = {}
        for name in images.names:
            if "://" in name:
                raise ConfigError(f"--sidecar: {name} is no file on this disk to write beside")
            self.owner.setdefault(str(self.path(name)), name)

    def path(self, name: str) -> Path:
        """The sidecar of an image."""
        return Path(name).expanduser().with_suffix(self.suffix)

    def read(self, name: str) -> str | None:
        """The text of a sidecar that is there; None without one.

        Raises:
            OSError: it cannot be read.
            UnicodeDecodeError: it is not UTF-8.
        """
        try:
            return self.path(name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def owns(self, name: str) -> bool:
        """Tell whether the sidecar is this image's; another with its name may come before it."""
        owner = self.owner[str(self.path(name))]
        if owner != name:
            self.images.failed(name, f"its sidecar is that of another image: {owner}")
        return owner == name

    def is_done(self, name: str) -> bool:
        """Tell whether the image has a sidecar that stays."""
        done = self.existing == "skip" and self.path(name).exists()
        self.kept += done
        return done

    def write(self, name: str, captions: Sequence[str]) -> None:
        """Write the captions of an image, one per line; a line that is appended is there once."""
        path, lines = self.path(name), list(captions)
        try:
            old = (self.read(name) or "").splitlines() if self.existing == "append" else []
            lines = [*old, *(line for line in lines if line not in old)]
            with whole_file(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        except UnicodeDecodeError:
            self.images.failed(name, _NOT_UTF8)
        except OSError as error:
            self.images.failed(name, f"sidecar not written ({error.strerror or error})")
        else:
            self.written += 1


class CaptionTable:
    """A CSV file with a row per image: ``image``, ``caption``, ``problem``.

    It is written under another name and published when the run ends, also when it is interrupted.

    Args:
        path: of the file, which is replaced.

    Raises:
        ConfigError: it cannot be written.
    """

    HEADER = ("image", "caption", "problem")

    def __init__(self, path: str) -> None:
        self.whole = contextlib.ExitStack()
        try:
            temporary = self.whole.enter_context(whole_file(here(path)))
            self.file: IO[str] = self.whole.enter_context(
                open(  # noqa: SIM115
                    temporary, "w", encoding="utf-8", errors="backslashreplace", newline=""
                )
            )
        except OSError as error:
            raise ConfigError(
                f"--csv: {path} cannot be written: {error.strerror or error}"
            ) from None
        self.rows = csv.writer(self.file)
        self.rows.writerow(self.HEADER)

    def write(self, name: str, captions: Sequence[str]) -> None:
        """Add the rows of an image, one for each caption."""
        self.rows.writerows((name, caption, "") for caption in captions)

    def close(self, images: Images) -> None:
        """Add what was set aside, and give the file its name."""
        self.rows.writerows((name, "", why) for name, why in images.set_aside().items())
        self.whole.close()


class CaptionFiles:
    """The command ``caption`` with what it writes to files beside its rows.

    Args:
        images: those that are captioned.
        options: of the command line: ``sidecar``, ``existing``, ``csv``, ``prefix``, ``suffix``.

    Raises:
        ConfigError: as of ``Sidecars``; ``--existing`` without sidecars.
    """

    def __init__(self, images: Images, options: Namespace) -> None:
        if options.existing and not options.sidecar:
            raise ConfigError("--existing: it is of sidecars; give --sidecar .txt too")
        self.images = images
        existing = options.existing or "skip"
        self.sidecars = Sidecars(images, options.sidecar, existing) if options.sidecar else None
        self.table: CaptionTable | None = None

    def caption(
        self, session: Session, images: Images, options: Namespace, done: tasks.Advance
    ) -> Iterator[Row]:
        """Caption the images that have no sidecar yet; a row for each of these.

        Raises:
            ConfigError: as of ``CaptionTable``.
        """
        self.table = CaptionTable(options.csv) if options.csv else None
        for row in tasks.caption(session, images, options, done, self._waiting(done)):
            captions = row.get("captions") or [row["caption"]]
            if self.table is not None:
                self.table.write(row["image"], captions)
            if self.sidecars is not None:
                self.sidecars.write(row["image"], captions)
            yield row

    def _waiting(self, done: tasks.Advance) -> Iterator[int]:
        for number, name in enumerate(self.images.names):
            if self.sidecars is None:
                yield number
            elif not self.sidecars.owns(name):
                done(1)
            elif self.sidecars.is_done(name):
                self._tell_kept(name)
                done(1)
            else:
                yield number

    def _tell_kept(self, name: str) -> None:
        """Put a text that was there into the table."""
        if self.table is None or self.sidecars is None:
            return
        try:
            self.table.write(name, (self.sidecars.read(name) or "").splitlines())
        except UnicodeDecodeError:
            self.images.failed(name, _NOT_UTF8)
        except OSError as error:
            self.images.failed(name, f"its sidecar cannot be read ({error.strerror or error})")

    def close(self) -> None:
        """Finish the table."""
        if self.table is not None:
            self.table.close(self.images)

    def report(self) -> str:
        """Say in one line what was written, what was there, and what was set aside and why."""
        assert self.sidecars is not None
        counts = [f"{self.sidecars.written:,} captions written"]
        if self.sidecars.kept:
            counts.append(f"{self.sidecars.kept:,} there already")
        if aside := self.images.set_aside():
            kinds: dict[str, int] = {}
            for why in aside.values():
                kind = why.partition(":")[0]
                kinds[kind] = kinds.get(kind, 0) + 1
            listed = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items())
            counts.append(f"{len(aside):,} set aside ({listed}; first: {next(iter(aside))})")
        return f"{len(self.images.names):,} images: {', '.join(counts)}"


def _check_suffix(suffix: str) -> None:
    if not suffix.startswith(".") or os.sep in suffix or suffix.strip(". ") == "":
        near = suggest(f".{suffix}", (".txt", ".caption"))
        raise ConfigError(f"--sidecar: {suffix!r}.{near} A suffix with its dot is expected: .txt")
    if suffix.lower() in SUFFIXES:
        raise ConfigError(f"--sidecar: {suffix} is a suffix of images, which it would replace")
