"""Every key of a pass that adds scores to a finished run; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lavis_lite.config.schema import VisionTokensConfig, key
from lavis_lite.projects.blip.capfilt.config import CapfiltRunConfig, Scorer
from lavis_lite.registry.component import Component


@dataclass(frozen=True)
class ScoreDataConfig:
    """The images and texts as the scorers read them."""

    source: Component | None = key(
        "The dataset of the run, where it has moved or needs a secret; its own unless given.",
        None,
        kind="dataset",
    )
    image: Component = key(
        "Image processor; its size is each model's unless given.",
        Component("blip_image_eval"),
        kind="processor",
    )
    text: Component = key(
        "What is done to a text before scorers read it.",
        Component("blip_caption"),
        kind="processor",
    )
    batch_size: int = key("Images per batch.", 64, at_least=1)
    num_workers: int = key("Loader processes per worker; 0 loads in the worker.", 0, at_least=0)
    vision_tokens: VisionTokensConfig | None = key(
        "Keeps the tokens of the models' vision encoders, for runs that read the images again.",
        None,
    )


@dataclass(frozen=True)
class CapfiltScoreConfig:
    """Adding scores to a finished CapFilt run (`runner: {name: capfilt_score}`)."""

    without_effect: ClassVar = (
        "runner.executor",  # how work is spread over processes
        "runner.workers",
        "records",  # their fingerprint tells them, not their path
        "data.source",
        "run.report",
    )

    runner: Component = key("The runner, with `executor`.", kind="runner")
    records: str = key("The output folder of the run that gets the scores.")
    scorers: list[Scorer] = key("Scores of every text or image, by name.", kind="scorer")
    run: CapfiltRunConfig = key(
        "Output and device. Scores lie in the folder `scores` of the records, under the name of "
        "the output folder, which may be that very folder: RECORDS/scores/NAME."
    )
    data: ScoreDataConfig = key("How images and texts are read.", ScoreDataConfig())
    plugins: list[str] = key("Files or modules of your own to import first.", [])
