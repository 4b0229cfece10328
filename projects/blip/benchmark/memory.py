"""The memory of a pre-training step, and the cost of the usual ways to save memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from lavis_lite import registry
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.projects.blip.benchmark.pretrain import CLOSE, PretrainStep
from lavis_lite.projects.blip.benchmark.recomputing import recomputing
from lavis_lite.runners.benchmark.agreement import Difference

RECOMPUTING, ACCUMULATING = "gradient checkpointing", "accumulation"
MICRO = 2  # pairs of a micro-batch


@registry.register("workload", "blip_training_memory")
class TrainingMemory(PretrainStep):
    """A step as of ``blip_pretrain_step``, beside ways of it that hold fewer activations.

    ``gradient checkpointing`` recomputes all layers of all towers
    (``run.gradient_checkpointing``); compared are loss and norm of the gradients, of one draw of
    dropout. ``accumulation`` takes the batch in micro-batches of two pairs (``optim.accumulate``);
    it is less work, as pairs are contrasted and matched within theirs, and nothing is compared.
    ``straightforward`` and ``straightforward, fp32`` are those of ``blip_pretrain_step``. The
    arguments are its, too.
    """

    baselines = (RECOMPUTING, ACCUMULATING, *PretrainStep.baselines)

    def contender(self, name: str) -> Callable[[], float]:
        """Each does one optimizer step and returns the loss before it."""
        if name not in (RECOMPUTING, ACCUMULATING):
            return super().contender(name)
        optimizer = self._optimizer("ours")
        micro = MICRO if name == ACCUMULATING else self.amount

        def step() -> float:
            loss = self._gradients(name == RECOMPUTING, micro)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss

        return step

    def _gradients(self, recomputes: bool, micro: int, first: int = 0) -> float:
        """Add to the gradients those of the batch, taken ``micro`` pairs at a time; its loss."""
        total, autocast = 0.0, self.formats[self.precision].autocast
        with recomputing(self.model) if recomputes else nullcontext():
            for number, start in enumerate(range(0, self.amount, micro), first):
                part = {key: value[start : start + micro] for key, value in self.samples.items()}
                if number == 0:
                    self.model.update_momentum()
                with autocast():
                    loss = self.model(part, StepInfo(micro_step=number)).loss
                loss = loss * len(part["text_input"]) / self.amount
                loss.backward()
                total += loss.item()
        return total

    def differences(self, baseline: str, ours: float, theirs: float) -> list[Difference]:
        """Compare loss and gradients where the same is computed, see the class."""
        if baseline == ACCUMULATING:
            return []
        if baseline != RECOMPUTING:
            return super().differences(baseline, ours, theirs)
        (loss, norm), (same_loss, same_norm) = self._traceless(False), self._traceless(True)
        close = CLOSE[self.precision]
        return [
            Difference("loss", abs(loss - same_loss), close),
            Difference("norm of the gradients", abs(norm - same_norm) / norm, close),
        ]

    def _traceless(self, recomputes: bool) -> tuple[float, float]:
        """Loss and norm of the gradients of one draw of dropout; the model stays as it was."""
        before = [buffer.clone() for buffer in self.model.buffers()]
        torch.manual_seed(0)
        loss = self._gradients(recomputes, self.amount, first=1)
        found = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = float(nn.utils.get_total_norm(found))
        self.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, was in zip(self.model.buffers(), before, strict=True):
                buffer.copy_(was)
        return loss, norm
