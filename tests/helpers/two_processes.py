"""Run a function of a test file on two (or more) gloo processes, under a hard watchdog.

    from two_processes import run_on_two_processes

    def add_ranks(factor):                       # a function at the top level of a test file
        return distributed.all_reduce(torch.tensor(factor * distributed.rank())).item()

    def test_ranks_add_up():
        assert run_on_two_processes(add_ranks, 10) == [10, 10]

Processes are forked from a server that has imported torch once, so that a call costs tens of
milliseconds. Arguments and results are pickled; `ProcessFailed` carries every rank's traceback.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import inspect
import multiprocessing
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# torch._dynamo: the first optimizer step of a process imports it, for more than a second.
PRELOADED = ["torch._dynamo", "pytest", "lavis_lite.runners.train.runner"]


class ProcessFailed(AssertionError):
    """At least one rank raised, died or was still running at the deadline; `errors` by rank."""

    def __init__(self, errors: dict[int, str]) -> None:
        super().__init__("\n".join(f"--- rank {r}\n{text}" for r, text in sorted(errors.items())))
        self.errors = errors


def run_on_two_processes(fn: Callable, *args: Any, timeout: float = 60) -> list[Any]:
    """The results of ``fn(*args)`` on rank 0 and rank 1 of one process group."""
    return run_on_processes(fn, *args, world_size=2, timeout=timeout)


def run_on_processes(fn: Callable, *args: Any, world_size: int, timeout: float = 60) -> list[Any]:
    """The results of ``fn(*args)`` on every rank; ProcessFailed when any of them has none.

    ``timeout`` also bounds each collective (half of it), so that a hanging rank is named first.
    """
    from datetime import timedelta

    from torch.distributed import TCPStore

    # The store lives here, as it lives in torchrun's agent: no port is chosen twice.
    store = TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=timeout)
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    children: list[tuple[BaseProcess, Connection]] = []
    for rank in range(world_size):
        env = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCH_GLOO_LAZY_INIT": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
        }
        receiver, sender = context.Pipe(duplex=False)
        call = (inspect.getfile(fn), fn.__qualname__, pickle.dumps(args))
        process = context.Process(target=_child, args=(env, call, timeout, sender), daemon=True)
        process.start()
        sender.close()
        children.append((process, receiver))
    return _collect(children, time.monotonic() + timeout)


def _collect(children: list[tuple[BaseProcess, Connection]], deadline: float) -> list[Any]:
    results: dict[int, Any] = {}
    errors: dict[int, str] = {}
    waiting = {receiver: rank for rank, (_, receiver) in enumerate(children)}
    try:
        while waiting and (left := deadline - time.monotonic()) > 0:
            for receiver in wait(list(waiting), timeout=left):
                rank = waiting.pop(receiver)
                try:
                    ok, payload = receiver.recv()
                except EOFError:
                    children[rank][0].join(5)
                    errors[rank] = f"died with exit code {children[rank][0].exitcode}"
                    continue
                (results if ok else errors)[rank] = pickle.loads(payload) if ok else payload
        errors.update({rank: "still running at the deadline" for rank in waiting.values()})
    finally:
        for process, _ in children:
            process.join(0.0 if errors else 5.0)
            if process.is_alive():
                process.kill()
                process.join(5)
    if errors:
        raise ProcessFailed(errors)
    return [results[rank] for rank in range(len(children))]


def _child(env: dict[str, str], call: tuple, timeout: float, sender: Connection) -> None:
    os.environ.update(env)
    faulthandler.dump_traceback_later(timeout + 10, exit=True)  # should the parent be gone
    import torch

    from lavis_lite import distributed

    torch.set_num_threads(1)
    try:
        file, name, packed = call
        fn = _load(Path(file), name)
        distributed.init("cpu", timeout=timeout / 2)
        result = fn(*pickle.loads(packed))
        distributed.shutdown()
        sender.send((True, pickle.dumps(result)))
    except BaseException:
        sender.send((False, traceback.format_exc()))
        sender.close()
        os._exit(1)  # no clean-up that could wait for the other rank


def _load(file: Path, name: str) -> Callable:
    """The function from its file, whatever name pytest imported that file under."""
    module = sys.modules.get(f"_ranks_{file.stem}")
    if module is None:
        spec = importlib.util.spec_from_file_location(f"_ranks_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return getattr(module, name)
