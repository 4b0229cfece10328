"""What every composed model shares: training by its losses, and LAVIS's BaseModel surface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.losses.shared import Shared
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.modules.layers.ema import momentum_update
from lavis_lite.modules.output import ModelOutput, Samples
from lavis_lite.registry.component import SYNONYMS, width_hint

if TYPE_CHECKING:
    from lavis_lite.checkpoint.weights import LoadReport

LossSpecs = Mapping[str, Mapping[str, Any]]


class VisionLanguageModel(nn.Module):
    """A model made of built parts, trained by the sum of its losses.

    Subclasses assign towers and heads, then call ``add_losses``. ``momentum_pairs`` names the parts
    that a momentum copy follows; ``vision_towers`` and ``text_towers`` those of its towers that it
    may have, for what a run does to their layers.
    """

    image_size: ImageSize
    losses: nn.ModuleDict
    momentum_decay: float = 0.995
    momentum_pairs: tuple[str, ...] = ()
    vision_towers: tuple[str, ...] = ("visual_encoder",)
    text_towers: tuple[str, ...] = ("text_encoder", "text_decoder")
    prompt_length: int = 0  # leading tokens of a text that are given, not learnt
    card: Mapping[str, Any] = {}

    def add_losses(self, specs: LossSpecs | None) -> None:
        """Build the losses over this model's finished towers and heads.

        Args:
            specs: name in the output -> component (``{"itc": {"name": "itc", "queue_size": 8}}``).
        """
        built = {
            name: registry.build("loss", spec, model=self) for name, spec in (specs or {}).items()
        }
        self.losses = nn.ModuleDict(built)

    def forward(self, samples: Samples, step_info: StepInfo | None = None) -> ModelOutput:
        """Compute the losses of a batch, with the values computed on the way as extras.

        Args:
            samples: ``image`` (B, 3, H, W), ``text_input`` B texts; ``image_id`` (B,) where known.
            step_info: where the run stands. Whoever passes it moves the momentum copy, as the train
                runner does before each step. Without it a pass with gradients counts as a step of
                its own, as in LAVIS: it moves the copy, and the state is read from the batch
                (``StepInfo.of``).
        """
        if step_info is None:
            step_info = StepInfo.of(samples)
            if torch.is_grad_enabled() and not step_info.micro_step:
                self.update_momentum()
        shared = Shared(self, samples, step_info)
        losses = {name: loss(shared) for name, loss in self.losses.items()}
        return ModelOutput(losses, **shared.extras())

    def update_momentum(self) -> None:
        """Move the momentum copy, where there is one, towards the online weights."""
        pairs = [(getattr(self, n), getattr(self, f"{n}_m", None)) for n in self.momentum_pairs]
        online = [p for tower, copy in pairs if copy is not None for p in tower.parameters()]
        average = [p for _, copy in pairs if copy is not None for p in copy.parameters()]
        if average:
            momentum_update(online, average, self.momentum_decay)

    def reset_momentum(self) -> None:
        """Make the momentum copy equal to the online weights."""
        with torch.no_grad():
            for name in self.momentum_pairs:
                if (copy := getattr(self, f"{name}_m", None)) is not None:
                    copy.load_state_dict(getattr(self, name).state_dict())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def load_checkpoint(self, url_or_filename: str) -> LoadReport:
        """Load weights from a file, folder, URL or ``hf://`` address; strict, with a report."""
        from lavis_lite.checkpoint.weights import load_weights
        from lavis_lite.registry.weight_cards import known_digest

        return load_weights(self, url_or_filename, known_digest(url_or_filename))

    def save_pretrained(
        self, folder: str | Path, metrics: Mapping[str, float] | None = None
    ) -> Path:
        """Write the model as a folder that ``load_model(checkpoint=folder)`` gives back to the bit.

        See ``lavis_lite.models.folder.save``.
        """
        from lavis_lite.models import folder as model_folder

        return model_folder.save(self, folder, metrics)

    def show_n_params(self, return_str: bool = True) -> str | int:
        """Number of parameters, as ``"1.1M"`` or exactly."""
        total = sum(p.numel() for p in self.parameters())
        if not return_str:
            return total
        return f"{total / 1e6:.1f}M" if total >= 1e6 else f"{total / 1e3:.1f}K"

    def get_optimizer_params(
        self, weight_decay: float, lr_scale: float = 1.0
    ) -> list[dict[str, Any]]:
        """Parameter groups: matrices decay, norms and biases do not."""
        return decay_groups(self, weight_decay, lr_scale)

    def before_training(self, **kwargs: Any) -> None:
        """Called by LAVIS's loops before training; nothing to do here."""

    def before_evaluation(self, **kwargs: Any) -> None:
        """Called by LAVIS's loops before evaluation; nothing to do here."""

    @classmethod
    def from_pretrained(cls, model_type: str | None = None) -> VisionLanguageModel:
        """The released model of a type (LAVIS's spelling of ``load_model``)."""
        from lavis_lite.models import zoo
        from lavis_lite.registry import cards

        for name in cards.list_models():
            if registry.entry("model", name).result is cls:
                return zoo.load_model(name, model_type)  # type: ignore[return-value]
        raise LookupError(f"{cls.__name__} is not registered as a model")


def decay_groups(
    model: nn.Module, weight_decay: float, lr_scale: float = 1.0
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices decay; norms, biases and scalars do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2]
    others = [p for p in trained if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay, "lr_scale": lr_scale},
        {"params": others, "weight_decay": 0.0, "lr_scale": lr_scale},
    ]


def unit(x: Tensor) -> Tensor:
    """(..., E) scaled to unit length, in fp32 also under autocast."""
    return nn.functional.normalize(x.float(), dim=-1)


def width_of(tower: nn.Module, key: str, spec: Mapping[str, Any]) -> int:
    """The ``width`` of a tower.

    Raises:
        ConfigError: it has none.
    """
    width = getattr(tower, "width", None)
    if not isinstance(width, int):
        kind, what = {
            "vision": ("vision_encoder", "its tokens"),
            "text": ("text_backbone", "its states"),
        }[key]
        own = [name for name in SYNONYMS if hasattr(tower, name)]
        raise ConfigError(
            f"model.{key}: {spec['name']!r} ({registry.entry(kind, spec['name']).where}) gives a "
            f"{type(tower).__name__} that has no integer `width` (D of {what}): set "
            f"{width_hint('encoder', own) or '`encoder.width = ...`'} where it is made"
        )
    return width
