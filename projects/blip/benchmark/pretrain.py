"""A step of pre-training, beside the straightforward way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from lavis_lite import registry
from lavis_lite.config.schema import OptimConfig
from lavis_lite.models.base import decay_groups
from lavis_lite.modules.layers.compile import compile_towers
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.projects.blip.benchmark import straightforward
from lavis_lite.projects.blip.benchmark.inputs import BERT, build, images, texts
from lavis_lite.projects.blip.benchmark.recomputing import recomputing
from lavis_lite.runners.benchmark.agreement import Difference
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.train.optimizer import build_optimizer

RATE = 1e-6  # learning rate: weights stay about what they are
CLOSE = {"fp32": 1e-4, "bf16": 0.05}  # each loss; they are about 11, 0.6 and 10


@registry.register("workload", "blip_pretrain_step")
class PretrainStep:
    """Forward, backward and AdamW of a batch with ITC, ITM and LM, momentum copy and queue.

    The baseline ``straightforward`` computes the same losses of the same weights as the published
    code does, see ``straightforward.py``, and steps with torch's AdamW as it comes;
    ``straightforward, fp32`` does so without autocast, whatever the case's precision. Compared are
    the losses without dropout; dropout is on when steps are timed.

    Args:
        type: of ``blip_pretrain``: its sizes.
        vocab_size: tokens of the vocabulary.
        image_size: side of the images.
        batch: pairs.
        queue_size: earlier pairs to contrast against.
        words: fewest and most words of a text.
        compile: ``torch.compile`` the layers of the towers, which all contenders share.
        recompute: ours keeps matrix products and attention alone of its layers' activations
            (``run.gradient_checkpointing.keep``); the baselines keep all.
        device, precision: where, and the autocast format of forward passes.
    """

    unit = "pairs"
    baselines = ("straightforward", "straightforward, fp32")

    def __init__(
        self,
        type: str = "base",
        vocab_size: int = BERT,
        image_size: int = 224,
        batch: int = 8,
        queue_size: int = 57600,
        words: list[int] | None = None,
        compile: bool = False,
        recompute: bool = False,
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        self.amount, self.precision, self.recompute = batch, precision, recompute
        self.formats = {name: Precision(name, device) for name in ("fp32", precision)}
        losses = {"itc": {"queue_size": queue_size}}
        self.model = build(
            "blip_pretrain", type, vocab_size, image_size=image_size, losses=losses
        ).to(device)
        self.model.train()
        if compile:
            compile_towers(self.model)
        shortest, longest = words or (6, 18)
        self.samples = {
            "image": images(batch, image_size, torch.float32, device),
            "text_input": texts(batch, shortest, longest),
        }
        self._plain: torch.optim.Optimizer | None = None

    def contender(self, name: str) -> Callable[[], float]:
        """Each does one optimizer step and returns the loss before it."""
        optimizer = self._optimizer(name)
        losses = self._losses(name)

        def step() -> float:
            loss = sum(losses().values())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.item()

        return step

    def _optimizer(self, name: str) -> torch.optim.Optimizer:
        """Return an optimizer; the baselines share one, whose state is as large as two models."""
        if name == "ours":
            return build_optimizer(self.model, OptimConfig(lr=RATE))
        if self._plain is None:
            self._plain = torch.optim.AdamW(decay_groups(self.model, 0.05), lr=RATE)
        return self._plain

    def _losses(self, name: str) -> Callable[[], dict[str, Any]]:
        autocast = self.formats["fp32" if name.endswith("fp32") else self.precision].autocast

        def compute() -> dict[str, Any]:
            if name != "ours":
                with autocast():
                    return straightforward.losses(self.model, self.samples)
            saving = recomputing(self.model, "products") if self.recompute else nullcontext()
            with autocast(), saving:
                found = self.model(self.samples)
                return {name: found[f"loss_{name}"] for name in self.model.losses}

        return compute

    @torch.no_grad()
    def differences(self, baseline: str, ours: float, theirs: float) -> list[Difference]:
        """Compare each loss, without dropout, on the current weights."""
        with eval_mode(self.model):
            mine, other = self._losses("ours")(), self._losses(baseline)()
        return [
            Difference(
                f"loss {name}", abs(float(mine[name]) - float(other[name])), CLOSE[self.precision]
            )
            for name in mine
        ]
