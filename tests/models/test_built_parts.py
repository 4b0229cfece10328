"""Models made of built parts, without a registry and without a config."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from bench_models import BenchPatches, batch, bench_model
from torch import Tensor, nn

from lavis_lite import create_model, registry
from lavis_lite.losses.language import LanguageModelling
from lavis_lite.models.base import VisionLanguageModel
from lavis_lite.models.build import ARGUMENTS, describe_arguments
from lavis_lite.modules.med.model import Med, MedDecoder
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.blip.caption import BlipCaption
from lavis_lite.registry import cards

MODELS = registry.index.names("model")
TINY = [name for name in MODELS if "tiny" in cards.types(name)]


def captioner(visual_encoder: nn.Module, width: int) -> BlipCaption:
    tokenizer = load_tokenizer()
    tower = Med(
        width=32,
        depth=2,
        num_heads=2,
        mlp_width=64,
        vocab_size=len(tokenizer),
        encoder_width=width,
        max_length=64,
    )
    return BlipCaption(
        visual_encoder,
        MedDecoder(tower),
        tokenizer,
        image_size=8,
        losses={"lm": LanguageModelling()},
    )


def test_a_captioner_is_made_in_a_notebook_from_any_encoder() -> None:
    class Rows(nn.Module):
        """Rows of pixels as tokens."""

        width = 3 * 8

        def forward(self, image: Tensor) -> Tensor:
            return image.transpose(1, 2).flatten(2)

    model = captioner(Rows(), Rows.width)
    samples = batch(2)
    output = model(samples)
    output.loss.backward()
    assert output.loss_lm.isfinite()
    assert model.text_decoder.bert.embeddings.word_embeddings.weight.grad is not None
    written = model.generate({"image": samples["image"]}, max_length=8, min_length=6)
    assert [type(text) for text in written] == [str, str]


def test_losses_are_taken_built_or_as_components() -> None:
    model = captioner(BenchPatches(), 16)
    model.add_losses({"built": LanguageModelling(0.0), "named": {"name": "lm"}})
    output = model(batch(2))
    assert set(output.losses) == {"built", "named"}
    assert list(dict(model.named_children()))[-1] == "losses"


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_at_most_four_of_our_classes_above_it(name: str) -> None:
    built = registry.entry("model", name).result
    assert built is not None
    ours = [c for c in built.__mro__ if c.__module__.partition(".")[0] == "lavis_lite"]
    assert len(ours) <= 4, [c.__name__ for c in ours]


@pytest.mark.parametrize("name", TINY)
def test_a_builder_is_a_function_that_describes_all_its_arguments(name: str) -> None:
    builder = registry.get("model", name)
    assert inspect.isfunction(builder)
    text = inspect.getdoc(builder)
    assert text is not None
    described = [line.strip().partition(":")[0] for line in text.splitlines()]
    places = [described.index(argument) for argument in registry.entry("model", name).arguments]
    assert places == sorted(places)
    assert "None" not in [line.strip().partition(": ")[2] for line in text.splitlines()]


def test_common_arguments_are_described_beside_a_builder_s_own() -> None:
    @describe_arguments
    def build(vision: dict, depth: int, losses: dict) -> None:
        """A model.

        It is small.

        Args:
            depth: of all its towers,
                counted from 1.

        Reference: none.
        """

    assert inspect.getdoc(build) == (
        "A model.\n\nIt is small.\n\nArgs:\n"
        f"    vision: {ARGUMENTS['vision']}\n"
        "    depth: of all its towers,\n        counted from 1.\n"
        f"    losses: {ARGUMENTS['losses']}\n\nReference: none."
    )


# ---- the momentum copy


def test_the_momentum_copy_is_one_and_does_what_the_model_does_with_its_own_parts() -> None:
    model = bench_model("blip_retrieval", momentum=0.5).eval()
    copied, image = model.momentum, batch(2)["image"]
    assert model.momentum is copied
    assert copied.visual_encoder is model.visual_encoder_m
    assert copied.tokenizer is model.tokenizer
    with torch.no_grad():
        for parameter in model.visual_encoder.parameters():
            parameter.add_(1.0)
        before = copied.encode_image(image)
        assert not before.equal(model.encode_image(image))
        model.update_momentum()
        between = copied.encode_image(image)
        assert not between.equal(before)
        model.reset_momentum()
        assert copied.encode_image(image).equal(model.encode_image(image))
    with pytest.raises(AttributeError, match="no attribute 'telepathy'"):
        copied.telepathy  # noqa: B018


def test_the_momentum_copy_of_a_copied_model_is_the_copy_s_own() -> None:
    model = bench_model("blip_retrieval")
    twin = copy.deepcopy(model)
    assert twin.momentum.visual_encoder is twin.visual_encoder_m
    assert twin.momentum.visual_encoder is not model.visual_encoder_m


def test_no_copy_is_kept_that_no_loss_asks_for() -> None:
    model = bench_model("blip_retrieval", losses={"itc": None})
    assert not hasattr(model, "momentum")
    assert not [name for name, _ in model.named_parameters() if "_m." in name]
    model.update_momentum()


# ---- names that changed


def test_features_have_their_old_names_too() -> None:
    class Old(VisionLanguageModel):
        def image_embeds(self, image_tokens: Tensor) -> Tensor:
            return image_tokens.mean(1)

    tokens = torch.randn(2, 3, 4)
    assert Old().image_features(tokens).equal(tokens.mean(1))  # type: ignore[operator]
    for name in ("blip_retrieval", "clip"):
        model = create_model(name, "tiny").eval()
        with torch.no_grad():
            tokens = model.encode_image(torch.randn(2, 3, 64, 64))  # type: ignore[operator]
            old, new = model.image_embeds(tokens), model.image_features(tokens)  # type: ignore[operator]
        assert old.equal(new)
