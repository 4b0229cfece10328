"""The training loop: steps, and hooks around them for everything periodic."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite import distributed
from lavis_lite.runners.process import seed_everything
from lavis_lite.runners.train.hooks import Hook, StepResult
from lavis_lite.runners.train.loss_module import to_device
from lavis_lite.runners.train.optimizer import set_learning_rate
from lavis_lite.runners.train.training import Training


def train(training: Training, hooks: Sequence[Hook]) -> None:
    """Train from the step where ``training.progress`` stands to the last one.

    Args:
        training: the run.
        hooks: called around steps, in this order; closed however training ends.

    Raises:
        FloatingPointError: too many steps in a row were not finite, or the last one.
        SystemExit: a signal ended the run early, after saving (code 143 or 130).
    """
    with ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.close)
        stack.enter_context(training.signals)
        for hook in hooks:
            hook.before_training(training)
        batches = stack.enter_context(closing(remaining_batches(training)))
        while training.step < training.max_steps:
            for hook in hooks:
                hook.before_step(training)
            result = train_step(training, batches)
            training.progress.step += 1
            for hook in hooks:
                hook.after_step(training, result)
        training.skipped.check_end()
        for hook in hooks:
            hook.after_training(training)


def train_step(training: Training, batches: Iterator[dict[str, Any]]) -> StepResult:
    """Do one optimizer step on ``optim.accumulate`` micro-batches."""
    begin = time.perf_counter()
    lr = training.schedule(training.step)
    set_learning_rate(training.optimizer, lr)
    seed_everything(training.config.run.seed, training.step, distributed.rank())
    training.skipped.remember(training.model)
    # Before anything is gathered: under FSDP2 weights and copy are shards here.
    update_momentum(training.model)

    losses, keys = accumulate_gradients(training, batches)
    if training.sharded is not None:
        training.sharded.average_kept_gradients()

    # Measure and clip; step only if every process found numbers.
    training.precision.unscale(training.optimizer)
    norm = limit_gradient_norm(training)
    loss_ok, norm_ok, go_on = agree(training, losses["loss"], norm)
    if loss_ok and norm_ok:
        training.precision.step(training.optimizer)
        training.skipped.clear()
        if training.average is not None:
            training.average.update()
    else:
        tolerated = loss_ok and training.precision.is_adapting
        training.skipped.skip(training.model, training.step, keys, losses, tolerated)
    training.precision.update()
    training.optimizer.zero_grad(set_to_none=True)

    num_samples = len(keys) * distributed.world_size()
    seconds = time.perf_counter() - begin
    return StepResult(losses, lr, float(norm), num_samples, seconds, stop=not go_on)


def accumulate_gradients(
    training: Training, batches: Iterator[dict[str, Any]]
) -> tuple[dict[str, Tensor], list[str]]:
    """Add up the gradients of the micro-batches to that of their mean loss.

    Returns:
        This process's mean losses by name, () each, and the keys of its samples.
    """
    losses: dict[str, Tensor] = {}
    keys: list[str] = []
    num_micro = training.config.optim.accumulate
    for micro in range(num_micro):
        samples = to_device(next(batches), training.device)
        keys += samples["key"]
        # Processes exchange gradients once, in the last backward pass.
        exchange = nullcontext() if micro == num_micro - 1 else training.loss_module.no_sync()
        with exchange, distributed.watch("the exchange of gradients"):
            with training.precision.autocast():
                found = training.loss_module(samples, training.step_info(micro))
            training.precision.backward(found["loss"] / num_micro)
        if training.adapters is not None:
            training.adapters.look_after_backward()
        for name, loss in found.items():
            losses[name] = losses.get(name, 0.0) + loss.detach() / num_micro
    return losses, keys


def update_momentum(model: nn.Module) -> None:
    """Move the momentum copy of a model that has one."""
    if hasattr(model, "update_momentum"):
        model.update_momentum()  # type: ignore[operator]


def limit_gradient_norm(training: Training) -> Tensor:
    """Clip the gradients to ``optim.clip_norm``; returns their () norm before."""
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if hasattr(norm, "full_tensor"):  # of shards, under FSDP2
        norm = norm.full_tensor()
    if clip_norm := training.config.optim.clip_norm:
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm


def agree(training: Training, loss: Tensor, norm: Tensor) -> list[bool]:
    """Tell whether on every process the loss is finite, the norm is finite, and no signal came."""
    # .item() waits for the device: the price of never stepping on a gradient that is no number.
    here = [loss.isfinite().item(), norm.isfinite().item(), training.signals.received is None]
    return distributed.all_reduce(torch.tensor(here, dtype=torch.uint8), "min").bool().tolist()


def remaining_batches(training: Training) -> Generator[dict[str, Any], None, None]:
    """Yield the micro-batches from the run's step to its end."""
    num_micro = training.config.optim.accumulate
    if training.data is not None:
        yield from training.data.batches(training.step * num_micro, training.max_steps * num_micro)
