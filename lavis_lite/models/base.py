"""The base class of models: training by their losses, and LAVIS's BaseModel surface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.calls import checked_options
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError, UnknownName
from lavis_lite.losses.shared import Shared
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.models.formats import Formats
from lavis_lite.models.images import images_of
from lavis_lite.models.momentum import MomentumCopy
from lavis_lite.models.texts import as_texts, texts_of
from lavis_lite.modules.output import ModelOutput, Samples
from lavis_lite.modules.samples import as_samples
from lavis_lite.modules.text.text_batch import TextBatch

if TYPE_CHECKING:
    from lavis_lite.checkpoint.weights import LoadReport

Spec = Mapping[str, Any]  # a component: a registered name with its arguments
LossSpecs = Mapping[str, Spec]
Losses = Mapping[str, nn.Module]
Texts = str | Sequence[str] | TextBatch
RENAMED = {"image_embeds": "image_features", "text_embeds": "text_features"}  # old name -> name


class VisionLanguageModel(nn.Module):
    """A model made of built parts, trained by the sum of its losses.

    Subclasses take their towers and heads as arguments; which component each of them is, is known
    to the registered function that builds the model. ``momentum_pairs`` names the parts that a
    ``MomentumCopy`` follows; ``vision_towers`` and ``text_towers`` those of its towers that it may
    have, for what a run does to their layers.
    """

    image_size: ImageSize
    losses: nn.ModuleDict
    formats = Formats()
    momentum_pairs: tuple[str, ...] = ()
    vision_towers: tuple[str, ...] = ("visual_encoder",)
    text_towers: tuple[str, ...] = ("text_encoder", "text_decoder")
    prompt_length: int = 0  # leading tokens of a text that are given, not learnt
    card: Mapping[str, Any] = {}

    def __init__(self) -> None:
        super().__init__()
        self.losses = nn.ModuleDict()

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Give methods that were renamed both names, whichever of them a class defines."""
        super().__init_subclass__(**kwargs)
        for pair in RENAMED.items():
            for name, other in (pair, pair[::-1]):
                if name in vars(cls) and other not in vars(cls):
                    setattr(cls, other, vars(cls)[name])

    @checked_options
    def add_losses(self, losses: Losses | LossSpecs | None) -> None:
        """Take up what the model is trained by; its towers and heads are in place.

        Args:
            losses: name in the output -> the loss, or its component, which is built with this
                model (``{"itc": {"name": "itc", "queue_size": 8}}``).
        """
        built = {
            name: loss if isinstance(loss, nn.Module) else registry.build("loss", loss, model=self)
            for name, loss in (losses or {}).items()
        }
        del self.losses  # the last of the parts in checkpoints, whatever was added since
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
        samples = checked_samples(samples, self)
        if step_info is None:
            step_info = StepInfo.of(samples)
            if torch.is_grad_enabled() and not step_info.micro_step:
                self.update_momentum()
        shared = Shared(self, samples, step_info)
        losses = {name: loss(shared) for name, loss in self.losses.items()}
        return ModelOutput(losses, **shared.extras())

    def update_momentum(self) -> None:
        """Move the momentum copy, where there is one, towards the online weights."""
        if isinstance(copy := getattr(self, "momentum", None), MomentumCopy):
            copy.update()

    def reset_momentum(self) -> None:
        """Make the momentum copy, where there is one, equal to the online weights."""
        if isinstance(copy := getattr(self, "momentum", None), MomentumCopy):
            copy.reset()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @checked_options
    def load_checkpoint(self, url_or_filename: str) -> LoadReport:
        """Load weights from a file, folder, URL or ``hf://`` address; strict, with a report."""
        from lavis_lite.checkpoint.weights import load_weights
        from lavis_lite.registry.weight_cards import known_digest

        return load_weights(self, url_or_filename, known_digest(url_or_filename))

    @checked_options
    def rename_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of other libraries under published keys, see ``Formats``."""
        return self.formats.rename_weights(weights)

    @checked_options
    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights in any published layout, in this model's names and sizes."""
        return self.formats.adapt_weights(self, weights)

    @checked_options
    def check_config(self, config: Mapping[str, Any], source: str) -> None:
        """Refuse weights that a ``config.json`` beside them says are of another model."""
        self.formats.check_config(self, config, source)

    @checked_options
    def save_transformers(self, folder: str | Path) -> Path:
        """Write the model as a folder that transformers' ``from_pretrained`` reads.

        Raises:
            ConfigError: transformers has no such model.
        """
        return self.formats.save_transformers(self, folder)

    @checked_options
    def save_pretrained(
        self, folder: str | Path, metrics: Mapping[str, float] | None = None
    ) -> Path:
        """Write the model as a folder that ``load_model(checkpoint=folder)`` gives back to the bit.

        See ``lavis_lite.models.folder.save``.
        """
        from lavis_lite.models import folder as model_folder

        return model_folder.save(self, folder, metrics)

    @checked_options
    def push_to_hub(
        self,
        repository: str,
        *,
        metrics: Mapping[str, float] | None = None,
        private: bool | None = None,
        revision: str | None = None,
        message: str | None = None,
        token: str | None = None,
    ) -> str:
        """Publish the model on the hub, as ``save_pretrained`` writes it.

        See ``lavis_lite.models.folder.push``; ``load_model(checkpoint="owner/name")`` loads it.
        """
        from lavis_lite.models import folder as model_folder

        return model_folder.push(
            self,
            repository,
            metrics=metrics,
            private=private,
            revision=revision,
            message=message,
            token=token,
        )

    @checked_options
    def show_n_params(self, return_str: bool = True) -> str | int:
        """Number of parameters, as ``"1.1M"`` or exactly."""
        total = sum(p.numel() for p in self.parameters())
        if not return_str:
            return total
        return f"{total / 1e6:.1f}M" if total >= 1e6 else f"{total / 1e3:.1f}K"

    @checked_options
    def get_optimizer_params(
        self, weight_decay: float, lr_scale: float = 1.0
    ) -> list[dict[str, Any]]:
        """Parameter groups: matrices decay, norms and biases do not."""
        return decay_groups(self, weight_decay, lr_scale)

    def before_training(self, **kwargs: object) -> None:
        """Called by LAVIS's loops before training; nothing to do here."""

    def before_evaluation(self, **kwargs: object) -> None:
        """Called by LAVIS's loops before evaluation; nothing to do here."""

    @classmethod
    @checked_options
    def from_pretrained(
        cls, model_type: str | Path | None = None, *, revision: str | None = None
    ) -> VisionLanguageModel:
        """The released model of a type (LAVIS's spelling of ``load_model``), or a published one.

        Args:
            model_type: a type; or a folder of ``save_pretrained``, or ``owner/name`` on the hub.
            revision: branch, tag or commit of the repository.

        Raises:
            ConfigError: the folder holds a model of another class.
        """
        from lavis_lite.models import zoo
        from lavis_lite.registry import cards

        if isinstance(model_type, Path) or "/" in (model_type or "") or revision is not None:
            source = None if model_type is None else str(model_type)
            loaded = zoo.load_model(checkpoint=source, revision=revision)
            if not isinstance(loaded, cls):
                kind = type(loaded).__name__
                raise ConfigError(f"{model_type}: holds a {kind}, not a {cls.__name__}")
            return loaded
        for name in cards.list_models():
            if registry.entry("model", name).result is cls:
                return zoo.load_model(name, model_type)  # type: ignore[return-value]
        raise UnknownName(f"{cls.__name__} is not registered as a model")


def checked_samples(samples: Samples, model: VisionLanguageModel) -> Samples:
    """Return a batch to learn from with its images as tensors and its texts as a list, one each.

    Only what is there is looked at: which of them are needed is known to the losses.

    Raises:
        ConfigError: images or texts of another form, or not as many of each.
    """
    names = getattr(model, "image_names", ("image",))
    checked = dict(as_samples(samples))
    images = {name: images_of(samples, model, name) for name in names if name in samples}
    counts = {name: len(image) for name, image in images.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise ConfigError(f"samples: {listed}; as many of each are expected")
    if (texts := samples.get("text_input")) is not None:
        checked["text_input"] = (
            texts_of(samples, max(counts.values())) if images else as_texts(texts)
        )
    return {**checked, **images}


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
