"""Annotation files, shards, archives and weights damaged at random, read to the last token.

    python tests/helpers/fuzz_readers.py --seconds 300 --seed 0 --record FILE
    python tests/helpers/fuzz_readers.py --seed 0 --only 1234  # one case again, with its traceback

Only our own errors may come out, or a row in quarantine: no other exception, no hang, no growth of
memory. A case is a function of the seed and its number.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import resource
import shlex
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_archives import write_archives, write_weights
from fuzz_targets import Target, write_targets
from mutations import mutate

from lavis_lite import registry
from lavis_lite.data.image_processors import BlipImageEval
from lavis_lite.data.loader import EvalData, Processors
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.data.text_processors import BlipCaption
from lavis_lite.errors import CheckpointError, ConfigError, DataError, DownloadError, UnknownName
from lavis_lite.modules.text.load_tokenizer import load_tokenizer

OURS = (DataError, ConfigError, UnknownName, DownloadError, CheckpointError)
SECONDS_PER_CASE = 20
MEGABYTES_PER_CASE = 300
PROCESSORS = Processors(BlipImageEval(image_size=4), BlipCaption())


class Hang(BaseException):
    """A case that takes too long; no `except Exception` swallows it."""


@dataclass
class Outcome:
    """What became of a case.

    Attributes:
        kind: `read`, `quarantined` (some rows of it), `refused`, or `finding`.
        what: the error; of a finding with its traceback.
    """

    kind: str
    what: str = ""


class Fuzzer:
    """Targets in a folder, damaged and read one after the other."""

    def __init__(self, folder: Path, seed: int):
        self.targets = [
            *write_targets(folder),
            *write_archives(folder / "archives"),
            *write_weights(folder / "weights"),
        ]
        self.seed = seed
        self.tokenizer = load_tokenizer()

    def target(self, number: int) -> Target:
        """The target of a case; all come in turn."""
        return self.targets[number % len(self.targets)]

    def case(self, number: int) -> Outcome:
        """Damage a file, read it, and put the good one back."""
        target, rng = self.target(number), random.Random(f"{self.seed}/{number}")
        damaged = target.pack(mutate(target.data, target.kind, rng))
        if target.packed and rng.random() < 0.3:
            damaged = mutate(damaged, "bytes", rng)
        target.path.write_bytes(damaged)
        before = _peak()
        handler = signal.signal(signal.SIGALRM, _alarm)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_CASE)
        try:
            outcome = self._read(target)
        except OURS as error:
            outcome = Outcome("refused", f"{type(error).__name__}: {error}"[:300])
        except Hang:
            outcome = Outcome("finding", f"hang of {SECONDS_PER_CASE} s\n{_trace()}")
        except Exception:
            outcome = Outcome("finding", _trace())
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            target.path.write_bytes(target.pack(target.data))
        if _peak() - before > MEGABYTES_PER_CASE:
            outcome = Outcome("finding", f"{_peak() - before:.0f} MB of memory; {outcome.what}")
        return outcome

    def _read(self, target: Target) -> Outcome:
        if target.read is not None:
            target.read(target.path)
            return Outcome("read")
        dataset = registry.build("dataset", dict(target.component))
        quarantine = Quarantine(max_bad_fraction=1.0)
        for batch in EvalData(dataset, PROCESSORS, batch_size=4, quarantine=quarantine).batches():
            ids = self.tokenizer.encode(batch["text_input"], 35).ids
            assert int(ids.max()) < len(self.tokenizer)
            json.dumps(batch["text_input"], ensure_ascii=False).encode()
            # A key may be the name of a file that is no UTF-8: it is written and read again.
            keys = json.dumps(batch["key"], ensure_ascii=False).encode(errors="backslashreplace")
            assert json.loads(keys) == batch["key"]
        bad = dict(quarantine.counts)
        return Outcome("quarantined", str(bad)) if bad else Outcome("read")


def _alarm(number: int, frame: Any) -> None:
    raise Hang


def _trace() -> str:
    return traceback.format_exc(limit=-6)


def _peak() -> float:
    """The most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def fuzz(
    folder: Path, seed: int, *, cases: int | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """Run cases 0, 1, 2 ... until so many are done or so much time has gone.

    Returns:
        seed, cases, seconds, outcomes (kind -> number), per reader, and the findings.
    """
    fuzzer, started, number = Fuzzer(folder, seed), time.monotonic(), 0
    outcomes: Counter[str] = Counter()
    readers: dict[str, Counter[str]] = {}
    findings: list[dict[str, Any]] = []
    while (cases is None or number < cases) and (
        seconds is None or time.monotonic() - started < seconds
    ):
        outcome, name = fuzzer.case(number), fuzzer.target(number).name
        outcomes[outcome.kind] += 1
        readers.setdefault(name, Counter())[outcome.kind] += 1
        if outcome.kind == "finding":
            findings.append({"case": number, "reader": name, "what": outcome.what})
            print(f"case {number}, {name}: {outcome.what}", file=sys.stderr, flush=True)
        number += 1
    return {
        "seed": seed,
        "cases": number,
        "seconds": round(time.monotonic() - started, 1),
        "peak_megabytes": round(_peak()),
        "outcomes": dict(sorted(outcomes.items())),
        "readers": {name: dict(sorted(counts.items())) for name, counts in sorted(readers.items())},
        "findings": findings,
    }


def main() -> int:
    """Fuzz, say what was found, and record it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", type=int, metavar="CASE", help="one case again")
    parser.add_argument("--record", type=Path, metavar="FILE", help="a JSON file of the result")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        if given.only is not None:
            outcome = Fuzzer(Path(folder), given.seed).case(given.only)
            print(f"{outcome.kind}: {outcome.what}")
            return int(outcome.kind == "finding")
        result = fuzz(Path(folder), given.seed, seconds=given.seconds)
    print(json.dumps({name: result[name] for name in ("cases", "seconds", "outcomes")}))
    if given.record:
        from lavis_lite.report.environment import environment

        begun = {"command": shlex.join(["python", *sys.argv]), "environment": environment()}
        given.record.write_text(json.dumps(begun | result, indent=1) + "\n", encoding="utf-8")
    return int(bool(result["findings"]))


if __name__ == "__main__":
    sys.exit(main())
