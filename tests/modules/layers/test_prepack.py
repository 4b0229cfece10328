"""Packed weights: the same numbers to within rounding, the same model otherwise."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from lavis_lite import create_model, load_model
from lavis_lite.modules.layers.linear import Linear, gelu_of
from lavis_lite.modules.layers.prepack import FORMATS, PackedLinear, prepack


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("blip_caption", "tiny").eval()


def pixels(model) -> torch.Tensor:
    return torch.randn(2, 3, model.image_size, model.image_size, generator=seeded())


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def packed_layers(model: nn.Module) -> list[PackedLinear]:
    return [part for part in model.modules() if isinstance(part, PackedLinear)]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("rows", [1, 3, 300])
def test_a_packed_layer_gives_the_same_product(dtype, rows):
    layer = Linear(96, 40).to(dtype).requires_grad_(False)
    holder = nn.Sequential(layer)
    assert prepack(holder) == 1
    x = torch.randn(rows, 5, 96, generator=seeded()).to(dtype)
    with torch.no_grad():
        found, wanted = holder(x), nn.functional.linear(x, layer.weight, layer.bias)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_gelu_of_a_packed_layer_is_the_exact_one(dtype):
    layer = Linear(96, 40).to(dtype).requires_grad_(False)
    holder = nn.Sequential(layer)
    prepack(holder)
    x = 3 * torch.randn(7, 96, generator=seeded()).to(dtype)
    with torch.no_grad():
        found, wanted = gelu_of(holder[0], x).float(), nn.functional.gelu(layer(x).float())
    torch.testing.assert_close(found, wanted, atol=1e-6 if dtype == torch.float32 else 0.02, rtol=0)


def test_every_linear_layer_is_packed_once_and_all_else_stays(model):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    image = pixels(model)
    with torch.no_grad():
        tokens = model.encode_image(image)
    written = model.generate({"image": image})
    layers = [part for part in model.modules() if isinstance(part, nn.Linear)]
    assert prepack(model) == len(layers) == len(packed_layers(model))
    assert prepack(model) == 0
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(image), tokens, atol=1e-5, rtol=1e-5)
    assert model.generate({"image": image}) == written


def test_layers_that_towers_share_stay_shared():
    model = create_model("blip_pretrain", "tiny")
    shared = model.text_encoder.encoder.layer[0].output
    assert shared is model.text_decoder.bert.encoder.layer[0].output
    prepack(model)
    assert model.text_encoder.encoder.layer[0].output is shared
    assert isinstance(shared.dense, PackedLinear)


def test_under_autocast_the_copy_in_its_format_is_used():
    layer = nn.Linear(64, 64)
    holder = nn.Sequential(copy.deepcopy(layer))
    prepack(holder, torch.bfloat16)
    x = torch.randn(4, 64, generator=seeded())
    with torch.no_grad():
        assert torch.equal(holder(x), Linear.forward(holder[0], x)), "fp32 has no copy"
        with torch.autocast("cpu", torch.bfloat16):
            found, wanted = holder(x), layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted)


def test_a_weight_that_changed_is_multiplied_itself():
    holder = nn.Sequential(nn.Linear(8, 8))
    prepack(holder)
    x = torch.randn(3, 8, generator=seeded())
    with torch.no_grad():
        holder[0].weight.zero_()
        assert torch.equal(holder(x), holder[0].bias.expand(3, 8))
    holder.load_state_dict(nn.Sequential(nn.Linear(8, 8)).state_dict())
    with torch.no_grad():
        torch.testing.assert_close(holder(x), nn.functional.linear(x, *holder[0].parameters()))


def test_weights_made_in_inference_mode_are_packed_too():
    x = torch.randn(3, 8, generator=seeded())
    with torch.inference_mode():
        holder = nn.Sequential(nn.Linear(8, 8))
        wanted = holder(x)
        prepack(holder)
        torch.testing.assert_close(holder(x), wanted)


@pytest.mark.parametrize("mode", [True, False])
def test_a_packed_layer_that_is_trained_learns_as_ever_and_drops_its_copy(mode):
    """The optimizer's fused step does not raise the version of a weight."""
    layers = nn.Sequential(nn.Linear(8, 8)), nn.Sequential(nn.Linear(8, 8))
    layers[1].load_state_dict(layers[0].state_dict())
    prepack(layers[1])
    x = torch.randn(3, 8, generator=seeded())
    for layer in layers:
        layer.train(mode)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(layers[1].eval()(x), layers[0].eval()(x))


def test_a_frozen_part_of_a_model_that_trains_drops_its_copy_too():
    """Such as a momentum copy, which is moved where no version tells of it."""
    holder = nn.Sequential(nn.Linear(8, 8).requires_grad_(False))
    prepack(holder)
    holder.train()
    holder[0].weight.data.zero_()
    x = torch.randn(3, 8, generator=seeded())
    with torch.no_grad():
        assert torch.equal(holder(x), holder[0].bias.expand(3, 8))


def test_a_bias_that_changed_is_the_one_that_is_added():
    holder = nn.Sequential(nn.Linear(8, 8))
    prepack(holder)
    x = torch.randn(3, 8, generator=seeded())
    with torch.no_grad():
        before = holder(x)
        holder[0].bias.add_(10)
        torch.testing.assert_close(holder(x), before + 10)


def test_a_packed_model_can_be_copied_and_saved(model):
    image = pixels(model)
    prepack(model)
    with torch.no_grad():
        wanted = model.encode_image(image)
        torch.testing.assert_close(copy.deepcopy(model).encode_image(image), wanted)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True).keys() == model.state_dict().keys()


def test_load_model_gives_weights_of_a_format_packed_if_asked():
    args = {"is_eval": True, "dtype": "bf16"}
    torch.manual_seed(0)
    model = load_model("blip_caption", "scenes", prepack=True, **args)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert packed_layers(model)
    assert not packed_layers(load_model("blip_caption", "scenes", **args))
    image = pixels(model)  # fp32, as processors give them
    assert isinstance(model.generate({"image": image})[0], str)


def test_a_format_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"dtype: 'bf61'\. Did you mean 'bf16'"):
        load_model("blip_caption", "tiny", dtype="bf61")
