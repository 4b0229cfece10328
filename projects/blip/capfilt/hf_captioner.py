"""hf_captioner: any image-text-to-text model of transformers as a captioner."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.calls import checked_options
from lavis_lite.errors import CheckpointError, ConfigError, DownloadError
from lavis_lite.io import hub
from lavis_lite.io.packages import naming_torchvision
from lavis_lite.models.images import images_of
from lavis_lite.modules.generation.rules import Rules
from lavis_lite.modules.generation.sampling import sample
from lavis_lite.modules.output import Samples
from lavis_lite.modules.text.hub_files import first_line


@registry.register("model", "hf_captioner")
class HfCaptioner(nn.Module):
    """A model of transformers with its own processor; for captioning, not for training.

    Code that comes with a model is never run.

    Args:
        source: the model's folder or hub id.
        prompt: what it is asked; a model with a chat template gets it as a user's message beside
            the image, another one as the beginning of the text.
        image_size: side of the square that images are scaled to before the model's own processor
            gets them.
    """

    image_mean = (0.0, 0.0, 0.0)  # pixels in [0, 1]: the model's processor normalises them
    image_std = (1.0, 1.0, 1.0)

    model: Any  # its generate() is transformers', unknown to nn.Module

    def __init__(self, source: str, prompt: str = "", image_size: int = 384) -> None:
        super().__init__()
        self.image_size, self.prompt = image_size, prompt
        self.model, self.processor = _load(source)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @checked_options
    @torch.no_grad()
    def generate(
        self,
        samples: Samples,
        method: Literal["nucleus", "beam", "greedy"] = "nucleus",
        num_captions: int = 1,
        top_p: float = 0.9,
        temperature: float = 1.0,
        num_beams: int = 3,
        max_new_tokens: int = 40,
        *,
        seeds: list[int] | None = None,
    ) -> list[str]:
        """Texts about images, the prompt removed.

        Args:
            samples: ``image`` (B, 3, H, W), pixels in [0, 1].
            method: ``nucleus``, ``beam`` or ``greedy``.
            num_captions: texts per image.
            top_p: smallest probability mass that sampling draws from, in (0, 1].
            temperature: of sampling.
            num_beams: beams per image.
            max_new_tokens: most tokens of a text.
            seeds: one per image; sampled texts depend on it and not on the batch.

        Returns:
            B * num_captions texts, image-major.

        Raises:
            ConfigError: options that contradict each other, or no images.
        """
        rules = Rules(
            method, num_beams, num_captions, max_new_tokens, 0, top_p, 0, temperature,
            1.0, 1.0, 0, 0,
        )  # fmt: skip
        rules.check(0)
        images = images_of(samples, self)
        if seeds is not None and len(seeds) != len(images):
            raise ConfigError(f"seeds: {len(seeds)} of them for {len(images)} images")
        pixels = (images.float() * 255).round().clamp(0, 255).to(torch.uint8).cpu()
        beams = {"num_beams": num_beams, "num_return_sequences": num_captions}
        repeats = 1
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": False}
        if method == "beam":
            options |= beams
        elif method == "nucleus":
            repeats = num_captions
            drawn = _numbers(seeds, len(pixels), num_captions, max_new_tokens)
            options["logits_processor"] = [SeededNucleus(drawn, top_p, temperature)]
        rows = [image for image in pixels for _ in range(repeats)]
        inputs = self._inputs(rows).to(self.device)
        found = self.model.generate(**inputs, **options)
        texts = self.processor.batch_decode(found, skip_special_tokens=True)
        asked = ""
        if "input_ids" in inputs:  # of every image the same
            asked = self.processor.batch_decode(inputs["input_ids"][:1], skip_special_tokens=True)[
                0
            ]
        # A decoder that goes on from what it was asked hands that out again, another one does not;
        # compared as text, since some replace or drop tokens of it.
        return [text.strip().removeprefix(asked.strip()).strip() for text in texts]

    def _inputs(self, images: list[Tensor]) -> Any:
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        if getattr(self.processor, "chat_template", None):
            asked = {"type": "text", "text": self.prompt or "Describe the image in one sentence."}
            message = [{"role": "user", "content": [{"type": "image"}, asked]}]
            text = self.processor.apply_chat_template(message, add_generation_prompt=True)
        else:
            text = self.prompt
        texts = {"text": [text] * len(images)} if text else {}
        if texts:
            tokenizer.padding_side = "left"
        return self.processor(images=images, return_tensors="pt", **texts)


class SeededNucleus:
    """Turns greedy search into nucleus sampling whose draws are given: row and step decide them.

    Args:
        uniform: (R, steps) numbers in [0, 1).
        top_p: smallest probability mass that is drawn from.
        temperature: divides the scores.
    """

    def __init__(self, uniform: Tensor, top_p: float, temperature: float) -> None:
        self.uniform, self.top_p, self.temperature = uniform, top_p, temperature
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(R, V) scores -> the same, with all but the drawn token at minus infinity."""
        probabilities = (scores.float() / self.temperature).softmax(-1)
        numbers = self.uniform[:, self.step].to(scores.device)
        chosen = sample(probabilities, numbers, self.top_p)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)


def _numbers(seeds: list[int] | None, num_images: int, each: int, steps: int) -> Tensor:
    seeds = seeds or torch.randint(2**62, (num_images,)).tolist()
    drawn = [
        numpy.random.default_rng([seed % 2**64, text]).random(steps, dtype=numpy.float32)
        for seed in seeds
        for text in range(each)
    ]
    return torch.from_numpy(numpy.array(drawn))


def _load(source: str) -> tuple[nn.Module, Any]:
    """Model and processor; code that comes with them is refused, never run."""
    with naming_torchvision():
        from transformers import AutoModelForImageTextToText, AutoProcessor

    options = {"trust_remote_code": False, "local_files_only": hub.offline()}
    try:
        with naming_torchvision(), hub.hub_client(source):
            processor = AutoProcessor.from_pretrained(source, **options)
            model = AutoModelForImageTextToText.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        if not Path(source).exists() and hub.why_no_hub() is not None:
            raise DownloadError(f"model.source: {source}: {hub.fetch_elsewhere(source)}") from None
        raise CheckpointError(
            f"model.source: {source}: no image-text-to-text model of transformers: "
            f"{first_line(error)}"
        ) from None
    if "images" not in inspect.signature(processor.__call__).parameters:
        raise CheckpointError(
            f"model.source: {source}: its {type(processor).__name__} takes no images; is its "
            "preprocessor_config.json missing?"
        )
    return model, processor
