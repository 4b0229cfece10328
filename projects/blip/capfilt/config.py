"""Every key of a CapFilt run; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lavis_lite.config.schema import VisionTokensConfig, key
from lavis_lite.modules.interfaces import Embeds, Generates, Matches
from lavis_lite.registry.capabilities import Capability
from lavis_lite.registry.component import Component, ModelComponent


@dataclass(frozen=True)
class Captioner(ModelComponent):
    """A model that can `generate`. Without a checkpoint, the type's released weights; `random`
    gives seeded random ones, to measure speed.
    """

    generate: dict[str, Any] = key(
        "Arguments of the model's `generate`; `method: nucleus` (p 0.9) unless given.", {}
    )
    called: str | None = key(
        "The name of its texts in the records; of one in a list the model's name unless given.",
        None,
    )

    @property
    def requires(self) -> tuple[Capability, ...]:
        """A captioner writes texts."""
        return (Generates,)


@dataclass(frozen=True)
class Filter(ModelComponent):
    """A model that can `match`. Without a checkpoint, the type's released weights; `random` gives
    seeded random ones, to measure speed.
    """

    score: Literal["itm", "itc"] = key(
        "`itm`: probability of a match; `itc`: cosine similarity of the embeddings.", "itm"
    )
    threshold: float | None = key(
        "Texts with a higher score are kept; by default 0.5 for `itm`.", None
    )
    keep_fraction: float | None = key(
        "Instead of a threshold: the share of each shard's texts, web and synthetic together, "
        "that is kept, the best ones.",
        None,
        at_least=0,
    )

    @property
    def requires(self) -> tuple[Capability, ...]:
        """The capabilities of a model that the score is computed with."""
        if self.score == "itm":
            return (Matches,)
        return (Embeds,)

    @property
    def limit(self) -> float | None:
        """The threshold that applies; None where a share is kept."""
        if self.keep_fraction is not None:
            return None
        return 0.5 if self.threshold is None else self.threshold


@dataclass(frozen=True)
class Scorer(Component):
    """A score of every text, or of every image. It decides nothing; a selection does."""

    called: str | None = key("The name that it is stored under; the scorer's unless given.", None)
    model: ModelComponent | None = key(
        "The model that it computes with, for a scorer that needs one. Without a checkpoint, the "
        "type's released weights. Scorers with equal models share the model and its pass over "
        "the images.",
        None,
        kind="model",
    )


@dataclass(frozen=True)
class SourceConfig:
    """The data to bootstrap."""

    source: Component = key("The dataset of noisy pairs.", kind="dataset")
    image: Component = key(
        "Image processor; its size is each model's unless given.",
        Component("blip_image_eval"),
        kind="processor",
    )
    text: Component = key(
        "What is done to a text before the filter reads it.",
        Component("blip_caption"),
        kind="processor",
    )
    batch_size: int = key("Images per batch.", 64, at_least=1)
    num_workers: int = key("Loader processes per worker; 0 loads in the worker.", 0, at_least=0)
    vision_tokens: VisionTokensConfig | None = key(
        "Keeps the tokens of the models' vision encoders, for runs that read the images again.",
        None,
    )
    without_text: Literal["quarantine", "caption"] = key(
        "Samples whose text is empty: set them aside, or caption them all the same.", "quarantine"
    )
    label: str | None = key(
        "A field of the rows that says what a web text is known to be; kept texts are counted by "
        "it, nothing else is done with it.",
        None,
    )
    right: list[str] = key(
        "Values of `label` that mean that a text is right: precision, recall and the ROC of the "
        "filter follow from them.",
        [],
    )


@dataclass(frozen=True)
class OutputConfig:
    """The output that is written beside the records."""

    images: bool = key(
        "Also write tar shards (webdataset) with the images of samples that keep a text.", False
    )
    table: bool = key(
        "Also write each shard's records as a parquet table; needs the extra `curation`. "
        "`lavis-lite tabulate` does so later.",
        False,
    )


@dataclass(frozen=True)
class CapfiltRunConfig:
    """The output folder of a run and its way of computing."""

    output_dir: str = key("Folder of everything the run writes; the same folder resumes it.")
    seed: int = key("Seed of sampled captions, together with each sample's key.", 0)
    device: str = key("auto, cpu, cuda (one per worker), cuda:N or mps.", "auto")
    precision: Literal["fp32", "bf16", "fp16"] = key("Autocast type of forward passes.", "fp32")
    num_threads: int = key(
        "Threads of each worker. A part of the fingerprint: sums depend on it.", 1, at_least=1
    )
    keep_memory: bool = key(
        "Keep freed memory for the next tensors, where glibc would hand it back to the system: "
        "faster, and the process holds the most that it ever needed until it ends. "
        "`LAVIS_LITE_KEEP_MEMORY=0` switches it off everywhere.",
        True,
    )
    prepack: bool = key(
        "Lay weights out as the CPU multiplies fastest; takes the memory of one more copy.", True
    )
    max_bad_fraction: float = key(
        "Share of samples set aside, of those that a worker has read, above which it stops.",
        0.1,
        at_least=0,
    )
    report: str | None = key(
        "File name of the HTML report; null writes none.", "capfilt_report.html"
    )


@dataclass(frozen=True)
class CapfiltConfig:
    """Captioning and filtering a dataset (`runner: {name: capfilt}`)."""

    without_effect: ClassVar = (
        "runner.executor",  # how work is spread over processes
        "runner.workers",
        "data.right",  # which texts are known to be right: what is counted afterwards
        "output.table",  # the same records once more
    )

    runner: Component = key("The runner, with `shard_size` and `executor`.", kind="runner")
    data: SourceConfig = key("What is bootstrapped.")
    run: CapfiltRunConfig = key("Output and device.")
    captioner: Captioner | list[Captioner] | None = key(
        "Writes texts, or a list of those who do; null: only filter.", None, kind="model"
    )
    filter: Filter | None = key("Judges texts; null: keep all.", None, kind="model")
    scorers: list[Scorer] = key(
        "Scores that are stored with every text or image, by name.", [], kind="scorer"
    )
    output: OutputConfig = key("What is written beside the records.", OutputConfig())
    plugins: list[str] = key("Files or modules of your own to import first.", [])
