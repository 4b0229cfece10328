"""FSDP2: weights, gradients and optimizer state divided over the processes, gathered for use.

The optimizer works on each process's own shards as on plain tensors, and checkpoints are written
and read whole: they are those of a run under DDP, and either goes on with the other's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lavis_lite import distributed
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.modules.layers.tower_layers import layers_of, towers


class Sharded(nn.Module):
    """``samples -> losses``, as ``LossModule``, under FSDP2; moves the optimizer onto the shards.

    Layers are gathered when they run and let go at once; the rest (embeddings, projections, heads)
    stays gathered during a step. Parameters without dimensions are kept whole on every process.

    Args:
        losses: with its model whole and equal on all processes, and nothing but it trained.
        optimizer: of the model's parameters, perhaps with the state of an earlier run.
    """

    def __init__(self, losses: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        model = losses.get_submodule("model")
        whole = dict(model.named_parameters())
        self._kept = [p for p in whole.values() if p.ndim == 0]
        for unit in sharding_units(model):
            fully_shard(unit, ignored_params=set(self._kept))
        fully_shard(losses, ignored_params=set(self._kept))
        self.losses = losses
        self._model: Any = model
        self._units = [m for m in losses.modules() if isinstance(m, FSDPModule)]
        self._optimizer = optimizer
        self._shards: dict[nn.Parameter, DTensor] = {}  # what the optimizer moves -> of what
        self._move_optimizer(whole, dict(model.named_parameters()))
        # Whoever runs first would count as the outermost; an evaluation may run layers alone.
        losses._get_fsdp_state()._lazy_init()  # type: ignore[operator]

    def _move_optimizer(
        self, whole: dict[str, nn.Parameter], sharded: dict[str, nn.Parameter]
    ) -> None:
        names = {parameter: name for name, parameter in whole.items()}
        for group in self._optimizer.param_groups:
            for place, parameter in enumerate(group["params"]):
                new: Any = sharded[names[parameter]]
                if not isinstance(new, DTensor):
                    continue
                own = nn.Parameter(new.to_local().detach())
                group["params"][place] = own
                self._shards[own] = new
                self._optimizer.state[own] = {
                    key: own_part(value, new) if value.shape == parameter.shape else value
                    for key, value in self._optimizer.state.pop(parameter, {}).items()
                }

    def forward(self, samples: dict[str, Any], step_info: StepInfo) -> dict[str, Tensor]:
        """Return () losses, each in fp32."""
        return self.losses(samples, step_info)

    def no_sync(self) -> AbstractContextManager[None]:
        """Gradients are exchanged in every backward pass: kept whole they would fill the memory."""
        return nullcontext()

    def take_gradients(self) -> None:
        """Hand the gradients, averaged over all processes, to what the optimizer moves."""
        for own, parameter in self._shards.items():
            gradient: Any = parameter.grad
            own.grad = None if gradient is None else gradient.to_local()
            parameter.grad = None
        for kept in self._kept:
            if kept.grad is not None:
                kept.grad = distributed.all_reduce(kept.grad) / distributed.world_size()

    def total_norm(self) -> Tensor:
        """() norm of all gradients of all processes."""
        own = nn.utils.get_total_norm([p.grad for p in self._shards if p.grad is not None])
        kept = nn.utils.get_total_norm([p.grad for p in self._kept if p.grad is not None])
        return (distributed.all_reduce(own.square()) + kept.square()).sqrt()

    def optimizer_state(self) -> dict[str, Any]:
        """``optimizer.state_dict()`` as one process alone would have it; every process calls it."""
        state = self._optimizer.state_dict()
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        for number, parameter in enumerate(parameters):
            if parameter in self._shards and number in state["state"]:
                state["state"][number] = {
                    key: all_parts(value, self._shards[parameter])
                    if value.shape == parameter.shape and value.ndim
                    else value
                    for key, value in state["state"][number].items()
                }
        return state

    def model_state(self) -> dict[str, Tensor]:
        """``model.state_dict()`` with whole tensors, a tied one once; every process calls it."""
        found: dict[Tensor, Tensor] = {}
        state = self._model.state_dict(keep_vars=True)
        for tensor in state.values():
            if tensor not in found:
                whole = tensor.detach()
                found[tensor] = whole.full_tensor() if isinstance(whole, DTensor) else whole
        return {name: found[tensor] for name, tensor in state.items()}

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within it every process has the whole model, to evaluate it."""
        for unit in self._units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        try:
            yield
        finally:
            for unit in self._units:
                unit.reshard()
                unit.set_reshard_after_forward(unit is not self.losses, recurse=False)


def sharding_units(model: nn.Module) -> list[list[nn.Module]]:
    """The parts that are gathered one after the other: the layers of a model's towers.

    A tower whose layers are not run as wholes names what is in ``sharding_units()``. Those of a
    momentum copy are among them; what towers share is there once.
    """
    found = {**towers(model, "vision"), **towers(model, "text")}
    copies = [getattr(model, f"{name}_m", None) for name in found]
    units: dict[nn.Module, list[nn.Module]] = {}
    for tower in [*found.values(), *(copy for copy in copies if isinstance(copy, nn.Module))]:
        own: list[Any] = [m for m in tower.modules() if hasattr(m, "sharding_units")]
        parts = own[0].sharding_units() if own else [[layer] for layer in layers_of(tower)]
        units |= {unit[0]: unit for unit in parts}
    return list(units.values())


def own_part(whole: Tensor, like: DTensor) -> Tensor:
    """This process's part of a tensor, divided as ``like`` is."""
    return distribute_tensor(whole, like.device_mesh, like.placements).to_local()


def all_parts(own: Tensor, like: DTensor) -> Tensor:
    """The whole of a tensor of which every process has the part that it has of ``like``."""
    parts = DTensor.from_local(
        own, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )
    return parts.full_tensor()
