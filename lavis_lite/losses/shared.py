"""One training step, seen by its losses: everything computed when first asked for, and once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from lavis_lite import distributed
from lavis_lite.data.collate import image_number
from lavis_lite.errors import ConfigError
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.modules.interfaces import ImageContext
from lavis_lite.modules.layers.similarity import cosines
from lavis_lite.modules.output import Named, Samples
from lavis_lite.modules.samples import kind_of, needed, text_rows, whole_numbers

if TYPE_CHECKING:
    from lavis_lite.modules.text.text_batch import TextBatch

M = TypeVar("M")
T = TypeVar("T")

# What an output may have: None of it is where no loss computed it.
_SIDES = [f"sim_{direction}" for direction in ("i2t", "t2i")]
SIMS = [f"{side}{kind}" for side in _SIDES for kind in ("", "_m", "_targets")]
STATES = [
    *("image_embeds", "text_embeds", "image_embeds_m", "text_embeds_m", "encoder_output"),
    *("encoder_output_m", "itm_logits", "itm_labels", "decoder_output", "decoder_logits"),
    *("decoder_labels", "mlm_labels", "logits", "logits_m"),
]


class Shared(Generic[M]):
    """The lazy view that a step's losses share.

    Args:
        model: what encodes: a model, or its momentum copy.
        samples: the batch.
        step_info: where the run stands; None reads it from the batch, see ``StepInfo.of``.
        grad: whether anything computed here may carry gradients.
    """

    def __init__(
        self,
        model: M,
        samples: Samples,
        step_info: StepInfo | None = None,
        *,
        grad: bool = True,
    ) -> None:
        self.model = model
        self._able: Any = model  # to whatever a loss requires
        self.samples = samples
        if step_info is not None and not isinstance(step_info, StepInfo):
            raise ConfigError(
                f"step_info: {kind_of(step_info)}; a StepInfo is expected, such as StepInfo(step=3)"
            )
        self.step_info = step_info or StepInfo.of(samples)
        # Asked once: whoever computes something first may do so under no_grad, for itself alone.
        self._grad = grad and torch.is_grad_enabled()
        self._handed_out: dict[str, Tensor] = {}

    @property
    def progress(self) -> float:
        """The completed fraction of the run, in [0, 1]; 1 outside a run."""
        return self.step_info.progress

    @property
    def step(self) -> int:
        """The optimizer step, counted from 0."""
        return self.step_info.step

    def generator(self, stream: int = 0) -> torch.Generator:
        """Return random numbers of this step: the same on every process, for every world size.

        Args:
            stream: one of several independent streams.
        """
        info = self.step_info
        # Python's hash of integers is the same in every process. Runs of earlier releases drew from
        # it, and continue bit for bit: `data.seeding.stable_hash` would give other numbers.
        seed = hash((info.seed, info.step, info.micro_step, stream))
        return torch.Generator().manual_seed(seed & (2**63 - 1))

    @cached_property
    def text(self) -> TextBatch:
        """The tokenised texts: ids and mask, each (B, T)."""
        return self._able.tokenize(needed(self.samples, "text_input"))

    @cached_property
    def image_tokens(self) -> Tensor:
        """(B, N, D); (2B, N, D) of a model that reads two images with a text, first ones first."""
        names = getattr(self.model, "image_names", ("image",))
        images = [needed(self.samples, name) for name in names]
        return self._compute(
            lambda: self._able.encode_image(images[0] if len(images) == 1 else torch.cat(images))
        )

    @cached_property
    def text_tokens(self) -> Tensor:
        """(B, T, D), of the text alone."""
        return self._compute(lambda: self._able.encode_text(self.text))

    @cached_property
    def image_features(self) -> Tensor:
        """(B, E) unit length, fp32; (B, Q, E) where several vectors embed an image."""
        of_context = getattr(self.model, "context_features", None)
        if of_context is not None:  # one pass over the image for both
            return self._compute(lambda: of_context(self.image_context))
        return self._compute(lambda: self._able.image_features(self.image_tokens))

    @cached_property
    def text_features(self) -> Tensor:
        """(B, E) unit length, fp32."""
        return self._compute(lambda: self._able.text_features(self.text_tokens))

    @cached_property
    def several_text_features(self) -> Tensor:
        """(B, K, E) unit length, fp32, of all texts of each image; K is 1 where it has but one."""
        rows = text_rows(self.samples)
        if rows is None:
            return self.text_features[:, None]
        text = self._able.tokenize([text for row in rows for text in row])
        return self._compute(lambda: self._features_of(text)).unflatten(0, (len(rows), -1))

    def _features_of(self, text: TextBatch) -> Tensor:
        return self._able.text_features(self._able.encode_text(text))

    @property
    def image_embeds(self) -> Tensor:
        """``image_features`` by the name that it had."""
        return self.image_features

    @property
    def text_embeds(self) -> Tensor:
        """``text_features`` by the name that it had."""
        return self.text_features

    @cached_property
    def class_logits(self) -> Tensor:
        """(B, C) logits of the classes, fp32."""
        return self._compute(lambda: self._able.classify(self.image_tokens, self.text))

    @property
    def temperature(self) -> Tensor:
        """() what similarities are divided by, fp32."""
        return self._able.temperature

    @cached_property
    def image_context(self) -> ImageContext:
        """The images as texts' cross-attention reads them, projected once for all losses."""
        return self._compute(lambda: self._able.image_context(self.image_tokens))

    @cached_property
    def image_ids(self) -> Tensor:
        """(B,) which image each row shows; without such ids in the batch, every row its own."""
        ids = self.samples.get("image_id")
        device = needed(self.samples, "image").device
        num_rows = len(needed(self.samples, "text_input"))
        if ids is None:
            return torch.arange(num_rows, device=device) + (distributed.rank() << 32)
        if isinstance(ids, list):
            ids = [image_number(number) for number in ids]
        return whole_numbers(ids, num_rows, "image_id").to(device)

    @cached_property
    def momentum(self) -> Shared[M]:
        """The same step seen by the model's momentum copy, without gradients."""
        view = Shared(self._able.momentum, self.samples, self.step_info, grad=False)
        view.__dict__["text"] = self.text
        return view

    def hand_out(self, **values: Tensor) -> None:
        """Add values that a loss computed on its way to the model's output."""
        self._handed_out |= values

    def extras(self) -> dict[str, Named]:
        """Return the values that the step computed besides its losses, under LAVIS's names.

        Returns:
            ``sims``: the similarities of contrast (``sim_i2t``, ``sim_t2i``, those of the momentum
            copy and the targets), where it was computed; ``intermediate_output``: the tokens of
            both modalities (``image_embeds`` (B, N, D), ``text_embeds`` (B, T, D), with ``_m``
            the momentum copy's) and what the losses handed out.
        """
        views = {"": self, "_m": vars(self).get("momentum", self)}
        states = {
            name + suffix: vars(view)[ours]
            for suffix, view in views.items()
            for name, ours in (("image_embeds", "image_tokens"), ("text_embeds", "text_tokens"))
            if ours in vars(view) and (view is not self or not suffix)
        }
        sims = {k: v for k, v in self._handed_out.items() if k.startswith("sim_")}
        states |= {k: v for k, v in self._handed_out.items() if k not in sims}
        extras = {"sims": Named(sims, SIMS)} if sims else {}
        return {**extras, "intermediate_output": Named(states, STATES)}

    def _compute(self, compute: Callable[[], T]) -> T:
        with torch.set_grad_enabled(self._grad):
            return compute()


def keeps_momentum(model: object) -> bool:
    """Tell whether a model has a momentum copy, whose predictions can be mixed into targets."""
    return getattr(model, "momentum", None) is not None


def rows_of(context: ImageContext, index: Tensor) -> ImageContext:
    """Take the rows ``index`` (R,) of a context of B rows; rows may repeat.

    A hard negative costs a gather here instead of a second projection of its image.

    Args:
        context: a tensor (B, ...), or a list or tuple of contexts, such as keys and values by
            layer.
        index: from 0 to B - 1.
    """
    if isinstance(context, Tensor):
        return context.index_select(0, index)
    rows = [rows_of(part, index) for part in context]
    return type(context)(*rows) if hasattr(context, "_fields") else type(context)(rows)


def similarities(rows: Tensor, columns: Tensor, temperature: Tensor | float) -> Tensor:
    """(B, E) and (C, E) unit vectors to (B, C) cosines over the temperature.

    In fp32 also under autocast; several vectors of each are compared as ``cosines`` does.
    """
    return cosines(rows, columns) / temperature


def first_row(num_rows: int) -> int:
    """Return the place of this process's row 0 in the joined batch of all processes.

    Args:
        num_rows: of this process; every process calls this at the same time.
    """
    counts = distributed.all_gather_object(num_rows)
    return sum(counts[: distributed.rank()])


def global_mean(total: Tensor, count: Tensor | int) -> Tensor:
    """A sum over this process's rows as its part of the mean over all processes' rows.

    Scaled so that averaging over processes (as DDP averages gradients) gives the mean of the joined
    batch, also when processes count differently.
    """
    if distributed.world_size() == 1:
        return total / torch.as_tensor(count, device=total.device).clamp(min=1)
    counts = torch.as_tensor(count, device=total.device, dtype=torch.float32)
    everywhere = distributed.all_reduce(counts.clone(), op="sum")
    return total * distributed.world_size() / everywhere.clamp(min=1)
