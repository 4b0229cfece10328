"""The contract between models and what trains them: a model of strangers keeps it as ours do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lavis_lite import config, registry
from lavis_lite.cli.info import about
from lavis_lite.config.schema import TrainConfig
from lavis_lite.errors import ConfigError
from lavis_lite.models.base import VisionLanguageModel, unit
from lavis_lite.models.momentum import MomentumCopy
from lavis_lite.models.zoo import build_model
from lavis_lite.modules.interfaces import (
    CAPABILITIES,
    Contrasts,
    ContrastsPairwise,
    Decodes,
    EncodesImage,
    Matches,
)
from lavis_lite.modules.output import ModelOutput
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.registry.capabilities import lacks, members_of, missing_from

WIDTH, LONGEST = 8, 12


class Letters:
    """A tokenizer of strangers: a letter is a token; 0 pads, 1 starts, 2 ends."""

    cls_id, sep_id, pad_id, mask_id = 1, 2, 0, None

    def __len__(self) -> int:
        return 128

    def encode(self, texts: list[str]) -> TextBatch:
        rows = [[1, *(ord(c) % 125 + 3 for c in text[: LONGEST - 2]), 2] for text in texts]
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        return TextBatch(ids, (ids != 0).long())


class Strange(VisionLanguageModel):
    """Pixels as tokens, a recurrent decoder, bags of letters: no code of ours but the base."""

    tokenizer: Letters

    def __init__(self) -> None:
        super().__init__()
        self.image_size, self.tokenizer = 8, Letters()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.letters = nn.Embedding(len(self.tokenizer), WIDTH)

    def tokenize(self, texts: list[str]) -> TextBatch:
        return self.tokenizer.encode(texts)

    def encode_image(self, image: Tensor) -> Tensor:
        return self.patches(image).flatten(2).transpose(1, 2)

    def image_context(self, image_tokens: Tensor) -> Tensor:
        return image_tokens


class StrangeWriter(Strange):
    """Writes: its decoder starts from the mean of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.words = nn.Linear(WIDTH, len(self.tokenizer))

    def decode_logits(self, image_context: Tensor, text: TextBatch) -> Tensor:
        start = image_context.mean(1)[None]
        return self.words(self.memory(self.letters(text.ids), start)[0])


class StrangeMatcher(Strange):
    """Matches and contrasts, with a momentum copy."""

    embed_width = WIDTH
    momentum_pairs = ("patches", "letters")
    momentum: MomentumCopy

    def __init__(self) -> None:
        super().__init__()
        self.judge = nn.Linear(2 * WIDTH, 2)
        self.temp = nn.Parameter(torch.tensor(0.1))

    @property
    def temperature(self) -> Tensor:
        return self.temp

    def encode_text(self, text: list[str] | TextBatch) -> Tensor:
        batch = text if isinstance(text, TextBatch) else self.tokenize(text)
        return self.letters(batch.ids) * batch.mask[..., None]

    def image_features(self, image_tokens: Tensor) -> Tensor:
        return unit(image_tokens.mean(1))

    def text_features(self, text_tokens: Tensor) -> Tensor:
        return unit(text_tokens.sum(1))

    def match_pairs(self, image_context: Tensor, text: TextBatch) -> Tensor:
        texts = self.encode_text(text).sum(1)
        images = image_context.mean(1).repeat_interleave(len(texts) // len(image_context), 0)
        return self.judge(torch.cat([images, texts], 1))


def strange_writer(losses: Mapping[str, Mapping[str, Any]] | None = None) -> StrangeWriter:
    """It writes."""
    model = StrangeWriter()
    model.add_losses(losses)
    return model


def strange_matcher(losses: Mapping[str, Mapping[str, Any]] | None = None) -> StrangeMatcher:
    """It matches."""
    model = StrangeMatcher()
    model.momentum = MomentumCopy(model, 0.9)
    model.add_losses(losses)
    return model


@pytest.fixture(scope="module", autouse=True)
def names() -> None:
    for builder in (strange_writer, strange_matcher):
        if builder.__name__ not in registry.names("model"):
            registry.register("model", builder.__name__)(builder)


def bound(folder: Path, model: str) -> TrainConfig:
    """The config of a training, checked as a run checks it."""
    file = folder / "train.yaml"
    file.write_text(
        f"runner: {{name: train}}\nmodel: {model}\n"
        "data: {train: [{name: scenes}]}\nrun: {output_dir: out}\n"
    )
    return config.load_and_bind(file, [])


@pytest.mark.parametrize(
    ("name", "losses"),
    [
        ("strange_writer", "{lm: {name: lm}}"),
        (
            "strange_matcher",
            "{itc: {name: itc, queue_size: 4}, itm: {name: itm}, nce: {name: info_nce}}",
        ),
    ],
)
def test_a_model_of_strangers_passes_the_check_and_takes_its_first_step(
    tmp_path: Path, name: str, losses: str
) -> None:
    checked = bound(tmp_path, f"{{name: {name}, losses: {losses}}}")
    model = build_model(checked.model).train()
    samples = {
        "image": torch.randn(4, 3, 8, 8),
        "text_input": ["a red cross", "two", "a star", "nothing"],
        "image_id": torch.arange(4),
    }
    output: ModelOutput = model(samples)
    assert output.loss is not None
    output.loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
    torch.optim.SGD(trained.values(), lr=0.1).step()
    assert model(samples).loss.isfinite()


def test_what_a_stranger_lacks_is_named_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'itm' requires encode_text, image_features, "):
        bound(tmp_path, "{name: strange_writer, losses: {itm: {name: itm}}}")


# ---- capabilities and their members


def test_a_capability_stands_for_its_members_and_those_that_it_includes() -> None:
    assert members_of([Matches]) == ("encode_image", "match")
    assert members_of([Matches, EncodesImage, "levitate"]) == ("encode_image", "match", "levitate")
    assert members_of([ContrastsPairwise])[-2:] == ("temperature", "logit_bias")
    assert members_of(("one", "two")) == ("one", "two")
    assert lacks(StrangeWriter, [Decodes]) == []
    assert lacks(Strange, [Decodes]) == ["decode_logits"]
    assert missing_from(StrangeWriter(), [Contrasts])[-1] == "temperature"


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_some_model_of_ours_has_each_capability(capability: type) -> None:
    models = [registry.entry("model", name).result for name in registry.index.names("model")]
    assert [m for m in models if m is not None and not lacks(m, [capability])]


@pytest.mark.parametrize("kind", ["loss", "metric"])
def test_what_ours_require_is_a_capability_that_info_explains(kind: str) -> None:
    explained = about("model")
    for name in registry.index.names(kind):
        for capability in registry.entry(kind, name).result.requires:  # type: ignore[union-attr]
            if capability.__module__.startswith("lavis_lite.projects."):  # explained there
                assert capability.__doc__, name
                continue
            assert capability in CAPABILITIES, name
            assert f"\n{capability.__name__}" in explained
            for member in members_of([capability]):
                assert member in explained
