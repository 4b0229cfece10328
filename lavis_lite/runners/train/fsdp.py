"""FSDP2: weights, gradients and optimizer state divided over the processes, gathered for use.

Checkpoints are written and read whole: they are those of a run under DDP, and either way of
training continues from the other's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard

from lavis_lite import distributed
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.modules.layers.tower_layers import layers_of, towers

WHOLE_ON_MAIN = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Sharded(nn.Module):
    """``LossModule`` under FSDP2; moves the optimizer onto the shards.

    Layers are gathered when they run and let go at once; the rest (embeddings, projections, heads)
    stays gathered during a step. Parameters without dimensions are kept whole on every process.

    Args:
        losses: with its model whole and equal on all processes, and nothing but it trained.
        optimizer: of the model's parameters, perhaps with the state of an earlier run.
    """

    def __init__(self, losses: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        model = losses.get_submodule("model")
        names = {parameter: name for name, parameter in model.named_parameters()}
        self._names = [names[p] for group in optimizer.param_groups for p in group["params"]]
        state = {self._names[n]: s for n, s in optimizer.state_dict()["state"].items()}
        self._kept = [p for p in names if p.ndim == 0]
        for unit in sharding_units(model):
            fully_shard(unit, ignored_params=set(self._kept))
        fully_shard(losses, ignored_params=set(self._kept))
        self.losses = losses
        self._model: Any = model
        self._units = [m for m in losses.modules() if isinstance(m, FSDPModule)]
        self._optimizer = optimizer
        sharded = dict(model.named_parameters())
        for group in optimizer.param_groups:
            group["params"] = [sharded[names[p]] for p in group["params"]]
        optimizer.state.clear()
        if state:
            self._load_optimizer_state(state)
        # Whoever runs first would count as the outermost; an evaluation may run layers alone.
        losses._get_fsdp_state()._lazy_init()  # type: ignore[operator]

    def _load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Take this process's shards of whole state, parameter name -> tensors."""
        groups = self._optimizer.state_dict()["param_groups"]
        named: Any = [{**g, "params": [self._names[n] for n in g["params"]]} for g in groups]
        set_optimizer_state_dict(
            self._model,
            self._optimizer,
            {"state": state, "param_groups": named},
            options=StateDictOptions(full_state_dict=True, strict=False),
        )
        for group, before in zip(self._optimizer.param_groups, groups, strict=True):
            before.pop("params")
            group.update(before)  # the helper makes lists of tuples
        # Parameters that never had a gradient have no state. They were given one with a step done.
        for name, parameter in self._model.named_parameters():
            if name not in state:
                self._optimizer.state.pop(parameter, None)

    def forward(self, samples: dict[str, Any], step_info: StepInfo) -> dict[str, Tensor]:
        """Return () losses, each in fp32."""
        return self.losses(samples, step_info)

    def no_sync(self) -> AbstractContextManager[None]:
        """Gradients are exchanged in every backward pass: kept whole they would fill the memory."""
        return nullcontext()

    def average_kept_gradients(self) -> None:
        """Average over processes the gradients of unsharded parameters: FSDP2 leaves them out."""
        for kept in self._kept:
            if kept.grad is not None:
                kept.grad = distributed.all_reduce(kept.grad) / distributed.world_size()

    def optimizer_state(self) -> dict[str, Any]:
        """Gather ``optimizer.state_dict()`` as one process alone would have it.

        Returns:
            It on the main process, on the CPU; nothing on the others. Every process calls it.
        """
        named: Any = {}
        if self._optimizer.state:  # else the helper would make some
            named = get_optimizer_state_dict(self._model, self._optimizer, options=WHOLE_ON_MAIN)
        numbers = {name: number for number, name in enumerate(self._names)}
        return {
            "state": {numbers[name]: state for name, state in named.get("state", {}).items()},
            "param_groups": self._optimizer.state_dict()["param_groups"],
        }

    def model_state(self) -> dict[str, Tensor]:
        """Gather ``model.state_dict()`` with whole tensors, a tied one once.

        Returns:
            It on the main process, on the CPU; nothing on the others. Every process calls it.
        """
        state: Any = get_model_state_dict(self._model, options=WHOLE_ON_MAIN)
        first: dict[Tensor, str] = {}
        for name, tensor in self._model.state_dict(keep_vars=True).items() if state else ():
            state[name] = state[first.setdefault(tensor, name)]
        return state

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Give every process the whole model in this context, to evaluate it."""
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
    """Return the parts that are gathered one after the other: the layers of a model's towers.

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
