"""Every key of a config, its type, default and meaning, as frozen dataclasses.

The reference page of the docs is generated from here. A ``component`` is a mapping with ``name``;
its other keys are the arguments of what is registered under that name.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Any, Literal

from lavis_lite.registry.component import Component, ModelComponent


def key(
    doc: str, default: Any = MISSING, *, kind: str | None = None, at_least: float | None = None
) -> Any:
    """Declare a config key: its documentation, the registry kind of a component, its minimum."""
    metadata = {"doc": doc, "kind": kind, "at_least": at_least}
    if default is MISSING:
        return field(metadata=metadata)
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainDataset(Component):
    """A dataset with its share in the mixture."""

    weight: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluator(Component):
    """A metric with the dataset that it reads."""

    data: Component = key("The dataset to evaluate on.", kind="dataset")


@dataclass(frozen=True)
class Modality:
    """Processors of one modality."""

    train: Component = key("Applied to training samples.", kind="processor")
    eval: Component = key("Applied to evaluation samples.", kind="processor")


@dataclass(frozen=True)
class ProcessorsConfig:
    """The processors that turn raw images and texts into model input."""

    image: Modality = key(
        "Image processors; `image_size` is the model's unless given.",
        Modality(Component("blip_image_train"), Component("blip_image_eval")),
    )
    text: Modality = key(
        "Text processors.", Modality(Component("blip_caption"), Component("blip_caption"))
    )


@dataclass(frozen=True)
class VisionTokensConfig:
    """Tokens of a frozen vision encoder, computed once and read in place of images.

    An image is encoded the first time that a run needs it; runs with the same encoder and
    processors share the folder.
    """

    folder: str = key("Folder of the tokens.")
    crops: int = key(
        "Random crops of each training image that are kept; every visit draws one of them. "
        "Evaluation keeps one.",
        1,
        at_least=1,
    )
    dtype: Literal["fp16", "bf16", "fp32"] = key("Type of the numbers on disk.", "fp16")
    seed: int = key("Seed of the crops, apart from `run.seed`, so that runs share them.", 0)


@dataclass(frozen=True)
class DataConfig:
    """Training data, processors and batches."""

    train: list[TrainDataset] = key("Datasets to train on.", [], kind="dataset")
    processors: ProcessorsConfig = key("Processors by modality.", ProcessorsConfig())
    batch_size: int = key("Samples per process and micro-batch.", 64, at_least=1)
    num_workers: int = key("Loader processes; 0 loads in the training process.", 2, at_least=0)
    vision_tokens: VisionTokensConfig | None = key(
        "Keeps the tokens of the vision encoder, which must be frozen; null encodes at each visit.",
        None,
    )
    texts_per_image: int = key(
        "Texts of an image in a training batch, each drawn and processed by itself; the loss "
        "`sigmoid` learns from all of them, most others from the first.",
        1,
        at_least=1,
    )


@dataclass(frozen=True)
class LoraConfig:
    """LoRA: low-rank matrices beside layers, trained in their place; needs the extra `peft`.

    Checkpoints hold the model with the adapters merged into its weights, so that they load
    wherever the plain model does.
    """

    rank: int = key("Rank of the matrices.", 8, at_least=1)
    alpha: float = key("What an adapter adds is multiplied by `alpha / rank`.", 16.0, at_least=0)
    dropout: float = key("Dropout of what goes into an adapter.", 0.0, at_least=0)
    target: list[str] = key(
        "Layers that get one: names of modules or shell patterns, as in `freeze`; empty: every "
        "linear layer in the layers of the towers, convolutions in a tower without any.",
        [],
    )
    train: list[str] = key("Parts trained whole beside the adapters, such as a new head.", [])


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, its schedule and what happens to gradients."""

    lr: float = key("Peak learning rate.", 3e-4, at_least=0)
    min_lr: float = key("Where the schedule ends (absolute).", 0.0, at_least=0)
    weight_decay: float = key("Decoupled weight decay, on matrices only.", 0.05, at_least=0)
    betas: list[float] = key("Adam's two decay rates.", [0.9, 0.999])
    eps: float = key("Adam's epsilon.", 1e-8)
    warmup_steps: int = key("Linear warm-up, in optimizer steps.", 0, at_least=0)
    warmup_lr: float = key("Learning rate that the warm-up rises from.", 0.0, at_least=0)
    schedule: Literal["cosine", "step", "constant"] = key("Shape after the warm-up.", "cosine")
    decay_rate: float = key("Factor per decay of the `step` schedule.", 0.9)
    decay_steps: int = key("Steps between decays of the `step` schedule.", 0, at_least=0)
    clip_norm: float = key("Largest gradient norm; 0 does not clip.", 0.0, at_least=0)
    accumulate: int = key("Micro-batches per optimizer step.", 1, at_least=1)
    layer_decay: float = key(
        "Factor on the learning rate for each layer that a weight lies below its tower's end.",
        1.0,
        at_least=0,
    )
    freeze: list[str] = key(
        "Parts that are not trained: names of modules or parameters, or shell patterns like "
        "`visual_encoder.blocks.[0-5]`.",
        [],
    )
    lora: LoraConfig | None = key("Trains adapters and leaves the weights alone.", None)
    ema_decay: float = key(
        "Decay of a moving average of the weights, kept beside them; 0 keeps none.", 0.0, at_least=0
    )


@dataclass(frozen=True)
class CheckpointingConfig:
    """Activation checkpointing: layers, from a tower's end, that recompute their activations.

    It takes less memory and more time, with the same numbers. -1 is every layer, 0 none.
    """

    vision: int = key("Layers of each vision tower.", 0, at_least=-1)
    text: int = key("Layers of each text tower.", 0, at_least=-1)
    keep: Literal["nothing", "products"] = key(
        "What of such a layer is kept all the same: with `products`, its matrix products and "
        "attention, so that only what is cheap is computed again.",
        "nothing",
    )


@dataclass(frozen=True)
class RunConfig:
    """A run's output, length and logging. Intervals are in steps, 0 = off."""

    output_dir: str = key("Folder of everything the run writes; the same folder resumes it.")
    max_steps: int = key("Optimizer steps of the whole run.", 1000, at_least=0)
    log_every: int = key("Steps between records in metrics.jsonl.", 20, at_least=0)
    eval_every: int = key("Steps between evaluations; the end is always evaluated.", 0, at_least=0)
    checkpoint_every: int = key(
        "Steps between checkpoints; the end is always saved.", 500, at_least=0
    )
    keep_last: int = key("Newest checkpoints that are kept.", 2, at_least=1)
    keep_best: str | None = key(
        "Also keep the checkpoint with the highest value of this figure, as `metric/figure`.", None
    )
    seed: int = key("Seed of initial weights, sample order, augmentation and dropout.", 0)
    device: str = key("auto, cpu, cuda, cuda:N or mps.", "auto")
    precision: Literal["fp32", "bf16", "fp16"] = key("Autocast type of forward passes.", "fp32")
    parallel: Literal["ddp", "fsdp"] = key(
        "What several processes share: `ddp` gradients alone, `fsdp` (FSDP2) weights and "
        "optimizer state too. Checkpoints of the one load in the other.",
        "ddp",
    )
    compile: bool = key("torch.compile the layers of all towers.", False)
    gradient_checkpointing: CheckpointingConfig = key(
        "Layers that trade time for memory.", CheckpointingConfig()
    )
    eval_weights: Literal["trained", "ema"] = key(
        "Which weights are evaluated: those of the last step, or their moving average.", "trained"
    )
    num_threads: int = key(
        "Threads of the training process; 0 leaves torch's choice.", 0, at_least=0
    )
    keep_memory: bool = key(
        "Keep freed memory for the next tensors, where glibc would hand it back to the system: "
        "faster, and the process holds the most that it ever needed until it ends. "
        "`LAVIS_LITE_KEEP_MEMORY=0` switches it off everywhere.",
        True,
    )
    loggers: list[Literal["jsonl", "console", "tensorboard"]] = key(
        "Where metrics go; jsonl is always on.", ["jsonl", "console"]
    )
    max_bad_fraction: float = key(
        "Share of unreadable samples above which the run stops.", 0.1, at_least=0
    )
    max_skipped_steps: int = key(
        "Consecutive non-finite steps that are skipped before stopping.", 3, at_least=0
    )
    on_disk_full: Literal["stop", "continue"] = key("When a checkpoint cannot be written.", "stop")


@dataclass(frozen=True)
class TrainConfig:
    """A training run (`runner: {name: train}`)."""

    runner: Component = key("The runner.", kind="runner")
    model: ModelComponent = key("The model.", kind="model")
    data: DataConfig = key("Training data.")
    run: RunConfig = key("Output, length, intervals.")
    optim: OptimConfig = key("Optimizer and schedule.", OptimConfig())
    evaluate: list[Evaluator] = key(
        "Metrics computed during and after training.", [], kind="metric"
    )
    plugins: list[str] = key("Files or modules of your own to import first.", [])


@dataclass(frozen=True)
class EvaluateConfig:
    """An evaluation of existing weights (`runner: {name: evaluate}`)."""

    runner: Component = key("The runner.", kind="runner")
    model: ModelComponent = key("The model; `checkpoint` names its weights.", kind="model")
    evaluate: list[Evaluator] = key("Metrics to compute.", kind="metric")
    run: RunConfig = key("Output and device.")
    data: DataConfig = key("Processors and batch size.", DataConfig())
    plugins: list[str] = key("Files or modules of your own to import first.", [])


@dataclass(frozen=True)
class Stage:
    """One run of a pipeline."""

    cfg: str = key("Its config file: relative to this one, or below configs/.")
    set: dict[str, Any] = key(
        "Overrides by dotted key; `${stage:NAME}` is the output folder of another stage.", {}
    )


@dataclass(frozen=True)
class PipelineRunConfig:
    """The output of a pipeline."""

    output_dir: str = key("Parent of the stages' output folders.")
    report: str | None = key(
        "File name of the HTML report in `output_dir`; null writes none.", None
    )
    title: str = key("Title of the report.", "lavis_lite run")
    about: str = key("What the report says below its title.", "")
    compare: list[list[str]] = key(
        "Pairs of stages, [before, after], whose results the report puts side by side.", []
    )


@dataclass(frozen=True)
class PipelineConfig:
    """Runs in order, each skipped when already complete (`runner: {name: pipeline}`)."""

    runner: Component = key("The runner.", kind="runner")
    stages: dict[str, Stage] = key("Stage name -> run.")
    run: PipelineRunConfig = key("Output folder and report.")
    values: dict[str, Any] = key("Values of your own: stages refer to `${values.NAME}`.", {})
    plugins: list[str] = key("Files or modules of your own to import first.", [])
