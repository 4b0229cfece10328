"""A plug-in for the runners' tests: the smallest model, dataset, processors and metric.

TOY_FAULT asks the model for a fault before a step, by steps done: ``kill:3``, ``term:3``,
``int:3``, ``twice:3`` (two signals), ``raise:3``, ``hang:3``, ``nan:3``, ``nan:3-9`` (everything
is NaN), ``nanloss:3`` (with sound gradients), ``infgrad:3`` (with a sound loss), ``full:3-9`` (no
room on the disk during these steps), ``tight:3-9`` (none for checkpoints); ``@1`` on rank 1 only.
"""

from __future__ import annotations

import os
import resource
import signal
import threading

import numpy
import torch
from PIL import Image
from torch import Tensor, nn

from lavis_lite import distributed, registry
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.modules.interfaces import Evaluation
from lavis_lite.modules.output import ModelOutput

SIZE = 4
ROOM = {"full": 1, "tight": 8192}  # bytes that a file may have
SIGNALS = {
    "kill": [signal.SIGKILL],
    "term": [signal.SIGTERM],
    "int": [signal.SIGINT],
    "twice": [signal.SIGTERM, signal.SIGTERM],
}


class FitTarget(nn.Module):
    """Mean squared error between (B,) outputs and the rows' ``target``."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()


class Guess(nn.Module):
    """Binary cross-entropy of an output that nothing can be learnt about, at its prior."""

    prior = 0.6931

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.prior + 0.0 * output.mean()


@registry.register("model", "toy_model")
class ToyModel(nn.Module):
    """A line through pixels, with dropout, a momentum copy and a queue of what it has seen."""

    image_size = SIZE
    momentum_pairs = ("head",)

    def __init__(
        self, width: int = 8, dropout: float = 0.1, guess: bool = False, unused: bool = False
    ) -> None:
        super().__init__()
        self.inner = nn.Linear(3 * SIZE * SIZE, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 1)
        self.head_m = nn.Linear(width, 1).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(6))
        self.register_buffer("momentum_updates", torch.zeros((), dtype=torch.long))
        if unused:
            self.unused = nn.Linear(3, 3)
        self.losses = nn.ModuleDict({"fit": FitTarget()})
        if guess:
            self.losses["guess"] = Guess()

    def outputs(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B,)."""
        return self.head(self.dropout(self.norm(self.inner(image.flatten(1))))).squeeze(1)

    def update_momentum(self) -> None:
        self.momentum_updates += 1
        for slow, fast in zip(self.head_m.parameters(), self.head.parameters(), strict=True):
            slow.data.lerp_(fast.data, 0.1)

    def forward(self, samples: dict, step_info: StepInfo) -> ModelOutput:
        assert 0 <= step_info.progress < 1
        image = commit_fault(samples["image"], step_info)
        output = self.outputs(image)
        if fault_of(step_info) == "infgrad":
            output.register_hook(lambda gradient: gradient * float("inf"))
        target = samples["target"].to(output) + 0.0 * self.queue.sum()  # NaN stays NaN
        seen = distributed.all_gather(output)
        self.queue.copy_(torch.cat([seen.float(), self.queue])[: len(self.queue)])
        losses = {k: loss(output, target) for k, loss in self.losses.items()}
        if fault_of(step_info) == "nanloss":
            losses = {name: loss + float("nan") for name, loss in losses.items()}
        return ModelOutput(losses)


def fault_of(step_info: StepInfo) -> str:
    """What TOY_FAULT asks for in this step of this process; nothing after torchrun's restart."""
    fault, _, when = os.environ.get("TOY_FAULT", "").partition(":")
    when, _, rank = when.partition("@")
    first, _, last = when.partition("-")
    if not when or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return ""
    if rank and int(rank) != distributed.rank():
        return ""
    return fault if int(first) <= step_info.step <= int(last or first) else ""


def commit_fault(image: Tensor, step_info: StepInfo) -> Tensor:
    """The batch's image, or what becomes of it."""
    fault = fault_of(step_info)
    if os.environ.get("TOY_FAULT", "").startswith(tuple(ROOM)):
        # Writing beyond it fails as on a full disk, but with EFBIG.
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM.get(fault, hard), hard))
    if fault == "nan":
        return image * float("nan")
    if fault == "raise":
        raise ValueError("the toy breaks")
    if fault == "hang":
        threading.Event().wait()
    if fault in SIGNALS and not step_info.micro_step:
        for number in SIGNALS[fault]:
            os.kill(os.getpid(), number)
    return image


@registry.register("dataset", "toy_rows")
class ToyRows:
    """Grey images with their brightness as ``target``."""

    name = "toy_rows"

    def __init__(self, size: int = 20, split: str = "train") -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        shade = index * 255 // self.size
        return {
            "image": Image.new("RGB", (SIZE, SIZE), (shade, shade, shade)),
            "text_input": f"shade {shade}",
            "image_id": index,
            "key": f"row-{index}",
            "target": index / self.size,
        }


@registry.register("processor", "toy_image")
class ToyImage:
    """Pixels in [0, 1], with noise where there is a generator."""

    def __init__(self, image_size: int, noise: float = 0.0) -> None:
        self.noise = noise
        assert image_size == SIZE

    def __call__(self, image: Image.Image, rng: numpy.random.Generator | None = None) -> Tensor:
        pixels = numpy.asarray(image, dtype=numpy.float32).transpose(2, 0, 1) / 255
        if rng is not None and self.noise:
            pixels = pixels + self.noise * rng.standard_normal(pixels.shape, dtype=numpy.float32)
        return torch.from_numpy(numpy.ascontiguousarray(pixels))


@registry.register("processor", "toy_text")
class ToyText:
    def __call__(self, text: str, rng: numpy.random.Generator | None = None) -> str:
        return text


@registry.register("metric", "toy_error")
class ToyError:
    """Mean absolute error; every process reads its share."""

    requires = ("outputs",)

    def __init__(self, signal_here: bool = False) -> None:
        self.signal_here = signal_here

    def evaluate(self, model: nn.Module, data, runner) -> Evaluation:
        assert not model.training
        assert not torch.is_grad_enabled()
        if self.signal_here and os.environ.get("TOY_FAULT") == "evaluation":
            os.kill(os.getpid(), signal.SIGTERM)
        rows = []
        for batch in data.batches(distributed.shard(len(data.dataset))):
            with runner.autocast():
                error = model.outputs(batch["image"].to(runner.device)).cpu() - batch["target"]
            rows += [
                {"key": k, "error": abs(float(e))} for k, e in zip(batch["key"], error, strict=True)
            ]
        rows = [row for part in distributed.all_gather_object(rows) for row in part]
        return Evaluation({"error": sum(r["error"] for r in rows) / len(rows)}, rows)
