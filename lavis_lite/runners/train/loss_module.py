"""The function from a batch to a model's losses, on one process or many."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lavis_lite import distributed
from lavis_lite.errors import ConfigError
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.models.base import VisionLanguageModel
from lavis_lite.modules.layers.compile import compile_towers
from lavis_lite.runners.train.nonfinite import copy_all

if TYPE_CHECKING:
    from lavis_lite.runners.train.fsdp import Sharded

log = logging.getLogger(__name__)


class LossModule(nn.Module):
    """``samples -> {"loss": sum, "loss_<name>": each}``, plain tensors that DDP can follow.

    A model whose ``forward`` has an argument ``step_info`` is told where the run stands.

    Args:
        model: returns a ModelOutput.
        compile: let torch.compile speed it up, see ``lavis_lite.modules.layers.compile``.

    Raises:
        ConfigError: the model's forward pass would lose the state of the step.
    """

    def __init__(self, model: nn.Module, compile: bool = False) -> None:
        super().__init__()
        self.model = model
        self._takes_step_info = "step_info" in inspect.signature(model.forward).parameters
        self._check_model()
        if compile:
            compile_towers(model, "run.compile")

    def _check_model(self) -> None:
        model, kind = self.model, type(self.model).__name__
        has_copy = bool(getattr(model, "momentum_pairs", ()))
        if has_copy and not hasattr(model, "update_momentum"):
            raise ConfigError(
                f"{kind}.momentum_pairs names a momentum copy: give {kind} the method "
                "`update_momentum()`, which the runner calls before each step"
            )
        if (has_copy or isinstance(model, VisionLanguageModel)) and not self._takes_step_info:
            raise ConfigError(
                f"{kind}.forward: write `forward(self, samples, step_info=None)` and hand "
                "`step_info` on; without it losses do not know the step, and the momentum copy "
                "would move twice"
            )

    def forward(self, samples: dict[str, Any], step_info: StepInfo) -> dict[str, Tensor]:
        """Return () losses, each in fp32."""
        known = {"step_info": step_info} if self._takes_step_info else {}
        output = self.model(samples, **known)
        if output.loss is None:
            raise ConfigError("model.losses: name at least one loss to train with")
        return {"loss": output.loss, **{f"loss_{k}": v for k, v in output.losses.items()}}

    def no_sync(self) -> AbstractContextManager[None]:
        """Do nothing: one process has no gradients to exchange; see DDP's."""
        return nullcontext()


def parallelize(
    losses: LossModule,
    first_batch: Callable[[], tuple[dict[str, Any], StepInfo]],
    optimizer: torch.optim.Optimizer,
    how: str = "ddp",
) -> LossModule | DistributedDataParallel | Sharded:
    """``losses`` as it is on one process, under DDP or FSDP2 on several.

    Args:
        losses: with its model on this process's device.
        first_batch: makes a batch and its state, to find out which parameters take part.
        optimizer: of the model; FSDP2 moves it onto this process's shards.
        how: ``ddp`` or ``fsdp``.
    """
    if distributed.world_size() == 1:
        return losses
    if how == "fsdp":
        from lavis_lite.runners.train.fsdp import Sharded

        with distributed.watch("the division of weights"):
            return Sharded(losses, optimizer)
    unused = unused_parameters(losses, *first_batch())
    unused = sorted({name for names in distributed.all_gather_object(unused) for name in names})
    if unused:
        log.info("%d parameters get no gradient, such as %s", len(unused), unused[0])
    # Every process computes the same buffers (queues hold everybody's features): none is sent.
    known = inspect.signature(DistributedDataParallel).parameters
    new = "forward_sync_buffers" in known  # its older name is deprecated
    options: dict[str, Any] = {"forward_sync_buffers" if new else "broadcast_buffers": False}
    with distributed.watch("the exchange of initial weights"):
        return DistributedDataParallel(losses, find_unused_parameters=bool(unused), **options)


def unused_parameters(
    losses: LossModule, samples: dict[str, Any], step_info: StepInfo
) -> list[str]:
    """Names of trainable parameters that the losses of ``samples`` do not depend on.

    The forward pass leaves no trace: buffers are put back.
    """
    before = [buffer.clone() for buffer in losses.model.buffers()]
    loss = losses(samples, step_info)["loss"]
    copy_all(list(losses.model.buffers()), before)
    used: set[int] = set()
    seen: set[Any] = set()
    todo = [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            used.add(id(leaf))
        todo += [following for following, _ in node.next_functions]
    parameters = losses.model.named_parameters()
    return [name for name, p in parameters if p.requires_grad and id(p) not in used]


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the batch with its tensors on ``device``."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }
