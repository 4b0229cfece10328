"""Memory of this machine against what weights need, said before they are loaded."""

from __future__ import annotations

from pathlib import Path

from lavis_lite.errors import ConfigError

_SYSTEM = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")  # of a container: its limit and what it uses


def available_memory() -> int | None:
    """Return the bytes of memory that are free for this process; None where nothing says."""
    found = []
    try:
        for line in _SYSTEM.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
    except (OSError, ValueError):
        pass
    try:
        limit, used = ((_GROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        found.append(int(limit) - int(used))
    except (OSError, ValueError):  # without a limit the first says `max`
        pass
    return min(found) if found else None


def check_memory(what: str, num_parameters: int, bytes_each: int, remedy: str) -> None:
    """Refuse weights that this machine's free memory does not hold.

    Args:
        what: a name for them, for the message.
        num_parameters: how many there are.
        bytes_each: of a parameter.
        remedy: a way out, for the message.

    Raises:
        ConfigError: too many; names both figures.
    """
    needed, free = num_parameters * bytes_each, available_memory()
    if free is not None and needed > free:
        raise ConfigError(
            f"{what}: its {num_parameters / 1e9:.2f} G parameters need {needed / 1e9:.1f} GB of "
            f"memory at {bytes_each} bytes each, and {free / 1e9:.1f} GB are free here; {remedy}"
        )
