"""The environment of a run: versions, commit, hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import lavis_lite

_PACKAGES = ("torch", "torchvision", "timm", "transformers")


def environment(*, gpu: bool = True) -> dict[str, str]:
    """Return versions, the commit (in a git checkout), processor, cores and GPU.

    Values are for reading; what cannot be found out is left out.

    Args:
        gpu: look for one, which imports torch.
    """
    found = {"lavis_lite": lavis_lite.__version__}
    found |= {package: _version(package) for package in _PACKAGES}
    found |= {
        "commit": commit(),
        "Python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": _cores(),
        "memory": _memory(),
        "GPU": _gpu() if gpu else "",
    }
    return {name: value for name, value in found.items() if value}


def commit() -> str:
    """Hash of the checkout that this package is imported from, marked when it has been changed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no") if head else ""
    return f"{head} with local changes" if changed else head


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> str:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    return str(total) if usable == total else f"{usable} of {total}"


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return ""
    return f"{size / 2**30:.0f} GiB"


def _gpu() -> str:
    try:
        import torch
    except Exception:  # a broken torch must not keep a report from being written
        return ""
    if not torch.cuda.is_available():
        return ""
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(names)
