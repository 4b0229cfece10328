"""The layers of towers, and recomputing their activations: less memory, the same numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from bench_models import bench_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy

from lavis_lite import create_model, registry
from lavis_lite.errors import ConfigError
from lavis_lite.modules.layers.tower_layers import (
    ATTENTIONS,
    Keep,
    keep_products,
    layer_depths,
    layers_of,
    recompute_activations,
)

SAMPLES = {"text_input": ["a red square", "two crosses above a star"], "image_id": [0, 1]}


def pretrain(**text: Any) -> Any:
    torch.manual_seed(1)
    return create_model("blip_pretrain", "tiny", text=text)


def step(model: nn.Module, autocast: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and all gradients of one training step."""
    torch.manual_seed(2)
    image = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model({"image": image, **SAMPLES}).loss
    loss.backward()
    found = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), found  # type: ignore[return-value]


# ---- which layers there are


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("vit_tiny_patch16_224", "Block", 12),
        ("resnet10t", "BasicBlock", 4),
        ("convnext_atto", "ConvNeXtStage", 4),
    ],
)
def test_the_layers_of_a_timm_model_are_its_blocks(name: str, kind: str, count: int) -> None:
    with torch.device("meta"):
        encoder = registry.build("vision_encoder", {"name": f"timm/{name}"}, image_size=224)
    assert [type(layer).__name__ for layer in layers_of(encoder)] == [kind] * count


def test_a_text_tower_with_and_without_its_head_has_the_layers_of_its_bert() -> None:
    decoder = pretrain().text_decoder
    assert layers_of(decoder) == layers_of(decoder.bert) == list(decoder.bert.encoder)


def test_an_mlp_is_no_list_of_layers() -> None:
    assert layers_of(nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))) == []


def test_a_weight_lies_as_deep_as_its_layer_and_what_follows_the_layers_at_zero() -> None:
    tower = create_model("blip_caption", "tiny").visual_encoder
    depths, count = layer_depths(tower)
    named = {name: depths[id(p)] for name, p in tower.named_parameters()}
    assert count == 3
    assert {named[k] for k in ("cls_token", "pos_embed", "patch_embed.proj.weight")} == {4}
    assert [named[f"blocks.{i}.mlp.fc1.weight"] for i in range(3)] == [3, 2, 1]
    assert named["norm.weight"] == 0


# ---- recomputing


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("keep", ["nothing", "products"])
def test_recomputed_activations_give_the_same_loss_and_gradients(
    dropout: float, autocast: bool, keep: Keep
) -> None:
    plain, saving = pretrain(dropout=dropout), pretrain(dropout=dropout)
    recompute_activations(saving, "vision", -1, keep)
    recompute_activations(saving, "text", -1, keep)
    loss, gradients = step(plain, autocast)
    same_loss, same_gradients = step(saving, autocast)
    assert torch.equal(loss, same_loss)
    assert gradients.keys() == same_gradients.keys()
    differing = {
        name for name in gradients if not torch.equal(gradients[name], same_gradients[name])
    }
    if keep == "products" and autocast:
        # A weight read several times in a step is cast each time: its gradients add up in fp32.
        assert all(name.startswith("text_encoder.") for name in differing)
        for name in differing:
            apart = (gradients[name] - same_gradients[name]).norm()
            assert apart < 0.02 * gradients[name].norm(), name
    else:
        assert not differing
    assert saving.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(("num_layers", "calls"), [(0, [1, 1, 1]), (1, [1, 1, 2]), (9, [2, 2, 2])])
def test_the_last_layers_run_twice_in_a_training_step(num_layers: int, calls: list[int]) -> None:
    model = create_model("blip_caption", "tiny")
    recompute_activations(model, "vision", num_layers)
    counts = [0, 0, 0]
    for number, block in enumerate(model.visual_encoder.blocks):
        block.mlp.register_forward_pre_hook(
            lambda *_, number=number: counts.__setitem__(number, counts[number] + 1)
        )
    step(model)
    assert counts == calls
    model.eval()  # gradients of an evaluation, such as those of an attention map: nothing twice
    model.encode_image(torch.randn(1, 3, 64, 64)).sum().backward()
    assert counts == [count + 1 for count in calls]


class Products(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operators(*keep: Keep) -> Counter[str]:
    model = pretrain(dropout=0.3)
    for one in keep:
        recompute_activations(model, "vision", -1, one)
        recompute_activations(model, "text", -1, one)
    with Products() as products:
        step(model)
    return products.counts


def test_products_that_are_kept_are_not_computed_again_but_norms_are() -> None:
    plain, kept, nothing = operators(), operators("products"), operators("nothing")
    for product in ("addmm", "mm", "bmm"):
        assert plain[product] == kept[product]
    assert nothing["addmm"] > plain["addmm"]
    for cheap in ("gelu", "native_layer_norm"):
        assert plain[cheap] < kept[cheap] == nothing[cheap]


def test_each_tower_of_a_modality_is_meant_and_no_momentum_copy() -> None:
    model = pretrain()
    recompute_activations(model, "text", -1)
    layers = {k: m for k, m in model.named_modules() if type(m).__name__ == "Layer"}
    changed = {name.partition(".")[0] for name, layer in layers.items() if "forward" in vars(layer)}
    assert changed == {"text_encoder", "text_decoder"}


def test_layers_that_count_what_they_see_are_refused() -> None:
    model = create_model("blip_caption", "tiny", vision={"name": "timm/resnet10t"})
    with pytest.raises(ConfigError, match=r"gradient_checkpointing.vision: .* running statistics"):
        recompute_activations(model, "vision", -1)


def test_a_tower_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"visual_encoder \(BenchPatches\) has no list of layers"):
        recompute_activations(bench_model("blip_caption"), "vision", -1)


def test_a_model_that_names_no_towers_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear names no text tower"):
        recompute_activations(nn.Linear(2, 2), "text", -1)


@pytest.mark.parametrize("operator", ATTENTIONS)
def test_attention_is_kept_only_where_it_draws_no_numbers(operator: Any) -> None:
    names = [argument.name for argument in operator._schema.arguments]
    place = names.index("dropout_p")
    for dropout, wanted in [(0.0, "MUST_SAVE"), (0.1, "PREFER_RECOMPUTE")]:
        given = [None] * place
        by_place = keep_products(None, operator, *given, dropout)
        by_name = keep_products(None, operator, *given, dropout_p=dropout)
        assert by_place == by_name == CheckpointPolicy[wanted]
    assert keep_products(None, operator, *[None] * 3) == CheckpointPolicy.MUST_SAVE
