"""Pictures, single texts and outputs: forms that mean the same, and names that are not there."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import call_table as table
import numpy as np
import pytest
import torch
from call_table import TEXTS, model_of
from torch import nn

from lavis_lite import create_model, load_model_and_preprocess
from lavis_lite.errors import ConfigError, UnknownName
from lavis_lite.losses.contrastive import row_contrast
from lavis_lite.losses.language import lm_cross_entropy
from lavis_lite.losses.masking import mlm_cross_entropy
from lavis_lite.losses.sigmoid import pairwise_sigmoid
from lavis_lite.modules.output import ModelOutput, Named, NoSuchOutput

WITH_PROCESSOR = [name for name in table.MODELS if name != "hf_captioner"]
CAPTIONERS = ["blip_caption", "blip_pretrain"]


# ---- pictures go through the model's own processor


@pytest.mark.parametrize("name", WITH_PROCESSOR)
def test_a_picture_is_what_the_model_s_own_processor_makes_of_it(name: str, tmp_path: Path) -> None:
    model, processors, _ = load_model_and_preprocess(name, "tiny", is_eval=True)
    picture = table.picture(model)
    formal = model.encode_image(processors["eval"](picture)[None])
    picture.save(path := tmp_path / "a.png")
    pixels = np.array(picture)
    forms: dict[str, Any] = {
        "a PIL image": picture,
        "a path": path,
        "a path as text": str(path),
        "bytes": path.read_bytes(),
        "an array": pixels,
        "a batch of arrays": pixels[None],
        "channels first": pixels.transpose(2, 0, 1),
        "a tensor": torch.from_numpy(pixels),
        "a batch, channels first": torch.from_numpy(pixels).permute(2, 0, 1)[None],
    }
    for label, form in forms.items():
        assert torch.equal(model.encode_image(form), formal), label
        assert torch.equal(model.encode_image([form]), formal), label
    mixed = model.encode_image([picture, path, processors["eval"](picture)])
    torch.testing.assert_close(mixed, formal.expand_as(mixed), atol=1e-5, rtol=1e-5)


def test_a_picture_for_a_model_that_has_no_processor_is_refused() -> None:
    model = model_of("hf_captioner")
    with pytest.raises(ConfigError, match="an Image, for a model without a processor"):
        model.generate({"image": table.picture(model)})


# ---- one text is one text


@pytest.mark.parametrize("name", table.MODELS)
def test_one_text_is_one_row(name: str) -> None:
    model = model_of(name)
    for method in ("tokenize", "tokenize_answers"):
        if hasattr(model, method):
            assert len(getattr(model, method)(TEXTS[0]).ids) == 1
    if hasattr(model, "encode_text"):
        assert torch.equal(model.encode_text(TEXTS[0]), model.encode_text(TEXTS[:1]))
    tokens = table.tokens(model) if hasattr(model, "encode_image") else None
    if hasattr(model, "rank"):
        assert torch.equal(model.rank(tokens, TEXTS[0]), model.rank(tokens, TEXTS[:1]))
    if hasattr(model, "match"):
        both = model.match(tokens, [TEXTS[0], TEXTS[0]])
        assert torch.equal(model.match(tokens, TEXTS[0]), both)


@pytest.mark.parametrize("name", ["blip_caption", "blip_retrieval", "clip", "siglip"])
def test_one_image_with_one_text_is_a_batch_of_one_to_learn_from(name: str) -> None:
    model = model_of(name)
    image = table.pixels(model)[:1]
    with torch.no_grad():
        formal = model({"image": image, "text_input": TEXTS[:1]}).loss
        assert torch.equal(model({"image": image[0], "text_input": TEXTS[0]}).loss, formal)


# ---- outputs and losses


@pytest.mark.parametrize("name", ["blip_pretrain", "blip_vqa", "siglip"])
def test_a_misspelt_name_of_an_output_is_told_the_nearest(name: str) -> None:
    model = model_of(name)
    samples = {"image": table.pixels(model), "text_input": TEXTS, "answers": [["a"], ["b"]]}
    with torch.no_grad():
        output = model(samples)
    for ask in (
        lambda: output.los,
        lambda: output["los"],
        lambda: output.intermediate_output.image_embed,
        lambda: output.intermediate_output["image_embed"],
    ):
        with pytest.raises(UnknownName, match=r"Did you mean '(loss|image_embeds)'"):
            ask()
    assert not hasattr(output, "los")
    assert output.intermediate_output.itm_labels is None or name == "blip_pretrain"
    assert copy.deepcopy(output).loss == output.loss


def test_the_error_of_an_output_is_one_of_an_attribute_and_of_a_key_and_pickles() -> None:
    with pytest.raises(AttributeError):
        getattr(Named({}), "nothing")  # noqa: B009
    with pytest.raises(KeyError) as error:
        ModelOutput({}, sims=1)["simz"]
    again = pickle.loads(pickle.dumps(error.value))
    assert isinstance(again, NoSuchOutput)
    assert str(again) == str(error.value)
    assert "Did you mean 'sims'" in str(again)


class RowByRow(nn.Module):
    """A loss that forgets to reduce."""

    def forward(self, shared: Any) -> torch.Tensor:
        return shared.image_tokens.mean(dim=(1, 2))


def test_a_loss_that_is_not_one_number_is_refused() -> None:
    model = create_model("blip_caption", "tiny")
    model.add_losses({"mine": RowByRow()})
    samples = {"image": table.pixels(model), "text_input": TEXTS}
    with pytest.raises(ConfigError, match=r"losses\.mine: gives a tensor \(2,\).* one number"):
        model(samples)


@pytest.mark.parametrize("reduction", ["none", "meen", None, 3])
def test_a_reduction_that_is_no_number_s_is_refused(reduction: Any) -> None:
    rows, ids = torch.eye(2), torch.tensor([0, 1])
    for loss in (
        lambda: row_contrast(rows, rows, 0.1, reduction=reduction),
        lambda: pairwise_sigmoid(rows, rows, 0.1, 0.0, reduction=reduction),
        lambda: lm_cross_entropy(torch.zeros(1, 3, 4), ids[None], reduction=reduction),
        lambda: mlm_cross_entropy(rows, ids, reduction=reduction),
    ):
        with pytest.raises(ConfigError, match=r"reduction: .* Known: mean, sum"):
            loss()


# ---- models travel


@pytest.mark.parametrize("name", table.MODELS)
def test_every_model_pickles_and_copies(name: str) -> None:
    model = model_of(name)
    method = "encode_image" if hasattr(model, "encode_image") else "generate"
    given = table.pixels(model) if method == "encode_image" else {"image": table.pixels(model)}
    options = {} if method == "encode_image" else {"method": "greedy", "max_new_tokens": 4}
    torch.save(model, io.BytesIO())
    with torch.no_grad():
        expected = getattr(model, method)(given, **options)
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            found = getattr(other, method)(given, **options)
            assert found == expected if isinstance(found, list) else torch.equal(found, expected)


def test_models_travel_through_ray() -> None:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, ignore_reinit_error=True)
    try:
        for name in ("blip_caption", "albef_retrieval", "clip"):
            model = model_of(name)
            other = ray.get(ray.put(model))
            assert torch.equal(
                other.encode_image(table.pixels(model)), model.encode_image(table.pixels(model))
            )
    finally:
        ray.shutdown()
