"""Collectives that are the identity on one process; when one fails, the missing rank is named."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lavis_lite.errors import ConfigError

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT = 600.0  # seconds; long enough for rank 0 to write a large checkpoint
GRACE = 2.0  # seconds that a rank waits for the others to report the same failure

_OPS = {"sum": dist.ReduceOp.SUM, "min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX}
_FAILURES = ("gloo", "closed by peer", "connection reset", "timed out", "timeout", "nccl")
_store: dist.Store | None = None


class ProcessLost(RuntimeError):
    """A collective failed because other ranks died or hang; ``ranks`` names them if known."""

    def __init__(self, message: str, ranks: list[int]) -> None:
        super().__init__(message)
        self.ranks = ranks


# ------------------------------------------------------------------------------ life cycle


def init(device: str = "auto", timeout: float | None = None) -> torch.device:
    """Join the processes that torchrun started; on one process only pick the device.

    Args:
        device: see `choose`; "cuda" is this process's own GPU.
        timeout: seconds after which a collective gives up; default LAVIS_LITE_TIMEOUT or 600.

    Returns:
        This process's device.

    Raises:
        ConfigError: the device doesn't exist here, or fewer GPUs than processes.
    """
    chosen = _device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if timeout is None:
            timeout = float(os.environ.get("LAVIS_LITE_TIMEOUT", DEFAULT_TIMEOUT))
        _join(chosen, timedelta(seconds=timeout))
    return chosen


def _device(name: str) -> torch.device:
    device = choose(name, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ConfigError(
                f"device {name!r}: this process would use GPU {device.index} and there are "
                f"{count}; start at most {count} processes with torchrun --nproc-per-node"
            )
        torch.cuda.set_device(device)
    return device


def _join(device: torch.device, timeout: timedelta) -> None:
    global _store
    # Connections made on first use survive an elastic restart; the eager full mesh often does not.
    os.environ.setdefault("TORCH_GLOO_LAZY_INIT", "1")
    store, rank_, size = next(dist.rendezvous("env://", timeout=timeout))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    # gloo stays for CPU tensors beside nccl: objects, sizes and barriers need no GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(f"group/{attempt}", store),
        rank=rank_,
        world_size=size,
        timeout=timeout,
    )
    _store = dist.PrefixStore(f"lavis_lite/{attempt}", store)


def shutdown() -> None:
    """Leave the process group; nothing on one process."""
    global _store
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    _store = None


def rank() -> int:
    """Return this process's number; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Tell whether this process, rank 0, writes files and logs."""
    return rank() == 0


def shard(n: int) -> range:
    """Return this rank's part of ``range(n)``: contiguous, every index on exactly one rank."""
    me, size = rank(), world_size()
    return range(n * me // size, n * (me + 1) // size)


# ----------------------------------------------------------------------------- collectives


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        with watch("barrier"):
            dist.all_reduce(torch.zeros(1))  # on the CPU: a GPU barrier would not block the host


def all_reduce(tensor: Tensor, op: str = "sum") -> Tensor:
    """Return the elementwise sum, min or max over all ranks; equal shapes, no gradient."""
    assert op in _OPS, f"op is {op!r}, it must be one of {sorted(_OPS)}"
    result = tensor.detach().clone()
    if world_size() > 1:
        with watch("all_reduce"):
            dist.all_reduce(result, op=_OPS[op])
    return result


def all_gather(tensor: Tensor, *, even: bool = False) -> Tensor:
    """Return every rank's rows, concatenated in rank order, without gradient.

    Args:
        tensor: (B, ...), any dtype; B may differ between ranks. A scalar counts as one row.
        even: promise that B is the same on all ranks, which saves exchanging the sizes.

    Returns:
        (sum of B, ...) on the same device.
    """
    tensor = tensor.detach()
    rows = tensor.reshape(1) if tensor.dim() == 0 else tensor
    if world_size() == 1:
        return rows
    return _gather(rows, None if even else _row_counts(rows))


def gather_with_grad(tensor: Tensor, *, even: bool = True) -> Tensor:
    """Gather rows as `all_gather`, with the gradient of every rank's loss for the rows' owner.

    The backward pass sums over ranks. So a loss that each rank computes on the gathered rows (the
    whole of it, or the mean over its own part) and DistributedDataParallel's averaging together
    give the gradient that one process computes on the concatenated batch.
    """
    if world_size() == 1:
        return tensor
    return _GatherWithGrad.apply(tensor, even)


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, even: bool) -> Tensor:
        counts = None if even else _row_counts(tensor)
        before = rank() * len(tensor) if counts is None else sum(counts[: rank()])
        ctx.local_rows = slice(before, before + len(tensor))
        return _gather(tensor, counts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return all_reduce(grad.contiguous())[ctx.local_rows], None


def all_gather_object(item: object) -> list[Any]:
    """Return every rank's ``item`` (any object that pickles), in rank order."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    with watch("all_gather_object"):
        dist.all_gather_object(items, item)
    return items


def _row_counts(rows: Tensor) -> list[int]:
    counts = torch.zeros(world_size(), dtype=torch.long)  # on the CPU: no GPU synchronisation
    with watch("all_gather"):
        dist.all_gather_into_tensor(counts, torch.tensor([len(rows)]))
    return counts.tolist()


def _gather(rows: Tensor, counts: list[int] | None) -> Tensor:
    """Concatenate (B, ...) over ranks as bytes, which suits every dtype on every backend."""
    counts = counts or [len(rows)] * world_size()
    per_row = rows.element_size() * rows.shape[1:].numel()
    longest = max(counts)
    sent = torch.zeros(longest * per_row, dtype=torch.uint8, device=rows.device)
    sent[: len(rows) * per_row] = rows.contiguous().reshape(-1).view(torch.uint8)
    received = torch.empty(world_size() * sent.numel(), dtype=torch.uint8, device=rows.device)
    with watch("all_gather"):
        dist.all_gather_into_tensor(received, sent)
    padded = received.view(rows.dtype).reshape(world_size(), longest, *rows.shape[1:])
    if min(counts) == longest:
        return padded.flatten(0, 1)
    return torch.cat([part[:count] for part, count in zip(padded, counts, strict=True)])


# -------------------------------------------------------------------------- missing ranks


@contextlib.contextmanager
def watch(what: str) -> Iterator[None]:
    """Turn a failed collective inside the block into a ProcessLost that names the missing ranks.

    Wrap the backward pass of DistributedDataParallel in it too: its reductions start there.
    """
    start = time.monotonic()
    try:
        yield
    except ProcessLost:
        raise
    except RuntimeError as error:
        if world_size() == 1 or not _is_communication(error):
            raise
        waited = time.monotonic() - start
        lost = missing_ranks()
        names = ", ".join(f"rank {r}" for r in lost) or "another rank"
        raise ProcessLost(
            f"rank {rank()}: {what} failed after {waited:.1f} s because {names} did not take part "
            f"(it died, hangs or went another way). {str(error).splitlines()[0][:200]}",
            lost,
        ) from error


def missing_ranks(grace: float = GRACE) -> list[int]:
    """Return the ranks that report no failed collective within ``grace`` seconds, ascending.

    Call it only when a collective has failed: it marks this rank as alive but stopped.
    """
    if _store is None:
        return []
    others = set(range(world_size())) - {rank()}
    try:
        _store.set(f"stopped/{rank()}", "1")
        end = time.monotonic() + grace
        while others and time.monotonic() < end:
            others = {r for r in others if not _store.check([f"stopped/{r}"])}
            time.sleep(0.05)
    except RuntimeError as error:  # the store lived in the process that died
        log.warning("cannot tell which ranks are missing: %s", str(error).splitlines()[0])
        return []
    return sorted(others)


def _is_communication(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in text for word in _FAILURES)


def best_device() -> torch.device:
    """Return CUDA if there is a GPU, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose(name: str, local_rank: int = 0, option: str = "run.device") -> torch.device:
    """Return the device that a config names.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` (this process's own), ``cuda:N`` or ``mps``.
        local_rank: this process's number on its machine.
        option: the setting's name in errors.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        name = best_device().type
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"{option}: {name!r} is not a device; auto, cpu, cuda, cuda:N, mps"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{option}: {name!r}, but CUDA is not available; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"{option}: {name!r}, but the last one is cuda:{torch.cuda.device_count() - 1}"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"{option}: 'mps', but it is not available; use auto or cpu")
    return torch.device("cuda", local_rank) if name == "cuda" else device
