"""Memory that stays with the process."""

import os
import resource
import subprocess
import sys

import pytest

from lavis_lite.runners.heap import keep_freed_memory

_FAULTS = """
import resource, sys
import torch
from lavis_lite.runners.heap import keep_freed_memory
kept = keep_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(20):                    # two tensors of 64 MiB each time
    torch.ones(16 * 2**20).add(1)
    if turn == 9:
        before = faults()
print(kept, faults() - before)
"""


def _measured(**environment: str) -> tuple[bool, int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LAVIS_LITE_KEEP", "MALLOC"))}
    clean.pop("GLIBC_TUNABLES", None)
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS],
        env=clean | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError, AttributeError):
        return False


@pytest.mark.skipif(not _is_glibc(), reason="only glibc hands large blocks back at every free")
def test_kept_memory_is_not_faulted_in_again():
    kept, few = _measured()
    left, many = _measured(LAVIS_LITE_KEEP_MEMORY="0")
    assert kept
    assert not left
    pages = 64 * 2**20 // resource.getpagesize()
    assert few < pages, "not even one tensor was faulted in again"
    assert many > few


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAVIS_LITE_KEEP_MEMORY", "0"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2"),
    ],
)
def test_the_environment_has_the_last_word(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()


def test_a_config_can_switch_it_off(monkeypatch):
    monkeypatch.delenv("LAVIS_LITE_KEEP_MEMORY", raising=False)
    assert not keep_freed_memory(wanted=False)
