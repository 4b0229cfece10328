"""Steps with a non-finite loss or gradient are skipped without a trace, up to a limit in a row."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite import distributed
from lavis_lite.modules.layers.ema import local
from lavis_lite.runners.run_folder import write_json

log = logging.getLogger(__name__)


class SkippedSteps:
    """Counts skipped steps, undoes their effect on the model, and ends a run with too many.

    Args:
        limit: skipped steps in a row that are put up with.
        path: where the samples of the steps go when the run ends.
    """

    def __init__(self, limit: int, path: Path) -> None:
        self.limit = limit
        self.path = path
        self.total = 0
        self.in_a_row = 0
        self._steps: list[dict[str, Any]] = []
        self._before: list[Tensor] = []

    def remember(self, model: nn.Module) -> None:
        """Copy what the model's forward pass writes, before a step.

        In queues and running statistics a single NaN would spoil every later step. The copy costs a
        few memory moves, nothing next to the step.
        """
        written = written_in_forward(model)
        if [t.shape for t in self._before] != [t.shape for t in written]:
            self._before = [torch.empty_like(t) for t in written]
        copy_all(self._before, written)

    def skip(
        self,
        model: nn.Module,
        step: int,
        keys: list[str],
        losses: dict[str, Tensor],
        tolerated: bool,
    ) -> None:
        """Undo a step.

        Args:
            model: whose buffers and momentum copy go back to what they were.
            step: the number of steps done before it.
            keys: the samples of this process.
            losses: what this process found.
            tolerated: fp16 with its scale still too high; does not count.

        Raises:
            FloatingPointError: too many in a row; ``path`` names the samples.
        """
        copy_all(written_in_forward(model), self._before)
        self.total += 1
        if tolerated:
            log.info("step %d overflows in fp16: skipped, the loss scale is halved", step + 1)
            return
        self.in_a_row += 1
        values = {name: float(loss) for name, loss in losses.items()}
        self._steps.append({"step": step + 1, "losses": values, "keys": keys})
        log.warning(
            "step %d is skipped: loss or gradient is not finite (%s); %d in a row, %d are allowed",
            step + 1,
            _spell(values),
            self.in_a_row,
            self.limit,
        )
        if self.in_a_row > self.limit:
            self._end(f"run.max_skipped_steps allows {self.limit}")

    def clear(self) -> None:
        """A good step ends the row."""
        self.in_a_row = 0
        self._steps.clear()

    def check_end(self) -> None:
        """Refuse to call a run complete whose last steps were skipped: no step came after them.

        Raises:
            FloatingPointError: as from ``skip``.
        """
        if self.in_a_row:
            self._end("the last of the run")

    def _end(self, why: str) -> None:
        steps = distributed.all_gather_object(self._steps)
        if distributed.is_main() and any(steps):  # a restart at the end has taken none itself
            ranks = [
                {"rank": rank, **step, "losses": _json(step["losses"])}
                for rank, its_steps in enumerate(steps)
                for step in its_steps
            ]
            write_json(self.path, {"steps": sorted(ranks, key=lambda r: (r["step"], r["rank"]))})
        raise FloatingPointError(
            f"loss or gradient was not finite in {self.in_a_row} steps in a row, {why}. "
            f"The weights are those of before. The samples are in {self.path}; if they are sound, "
            "try a lower optim.lr, optim.clip_norm: 1.0 or precision: fp32"
        )

    def state_dict(self) -> dict[str, int]:
        """Return the counts."""
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take up saved counts."""
        self.total, self.in_a_row = state["total"], state["in_a_row"]


def written_in_forward(model: nn.Module) -> list[Tensor]:
    """Return the buffers of a model, and the parameters of its momentum copy if it has one.

    A copy is known by ``momentum_pairs``, see VisionLanguageModel. Other frozen weights, which may
    be most of a model, are not written and cost nothing here.
    """
    names = [f"{name}_m" for name in getattr(model, "momentum_pairs", ())]
    copies = [copy for name in names if (copy := getattr(model, name, None)) is not None]
    weights = [local(p.detach()) for copy in copies for p in copy.parameters()]
    return [*model.buffers(), *weights]


@torch.no_grad()
def copy_all(to: list[Tensor], source: list[Tensor]) -> None:
    """Copy each tensor of ``source`` into its counterpart."""
    if to:
        torch._foreach_copy_(to, source)


def _spell(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _json(values: dict[str, float]) -> dict[str, float | str]:
    return {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
