"""Files of OpenAI and open_clip, against CLIP written out here over their own keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.errors import CheckpointError
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.projects.clip.convert import resampled

Weights = dict[str, Tensor]
WIDTH, DEPTH, HEADS, SIDE, E = 64, 3, 4, 64, 32
V = len(load_tokenizer())
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


# ---- CLIP over OpenAI's keys


def attention(x: Tensor, w: Weights, prefix: str, causal: bool) -> Tensor:
    """(B, T, D) -> (B, T, D), one head at a time."""
    query, key, value = F.linear(x, w[f"{prefix}in_proj_weight"], w[f"{prefix}in_proj_bias"]).chunk(
        3, -1
    )
    size = x.shape[-1] // HEADS
    parts = []
    for q, k, v in zip(*(t.split(size, -1) for t in (query, key, value)), strict=True):
        scores = q @ k.transpose(1, 2) / size**0.5
        if causal:
            hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        parts.append(scores.softmax(-1) @ v)
    joined = torch.cat(parts, -1)
    return F.linear(joined, w[f"{prefix}out_proj.weight"], w[f"{prefix}out_proj.bias"])


def norm(x: Tensor, w: Weights, prefix: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{prefix}.weight"], w[f"{prefix}.bias"], 1e-5)


def blocks(x: Tensor, w: Weights, prefix: str, causal: bool) -> Tensor:
    for n in range(DEPTH):
        at = f"{prefix}transformer.resblocks.{n}."
        x = x + attention(norm(x, w, f"{at}ln_1"), w, f"{at}attn.", causal)
        inner = F.linear(
            norm(x, w, f"{at}ln_2"), w[f"{at}mlp.c_fc.weight"], w[f"{at}mlp.c_fc.bias"]
        )
        inner = inner * torch.sigmoid(1.702 * inner)
        x = x + F.linear(inner, w[f"{at}mlp.c_proj.weight"], w[f"{at}mlp.c_proj.bias"])
    return x


def image_features(image: Tensor, w: Weights) -> Tensor:
    x = F.conv2d(image, w["visual.conv1.weight"], stride=16).flatten(2).transpose(1, 2)
    first = w["visual.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([first, x], dim=1) + w["visual.positional_embedding"]
    x = blocks(norm(x, w, "visual.ln_pre"), w, "visual.", causal=False)
    return norm(x[:, 0], w, "visual.ln_post") @ w["visual.proj"]


def text_features(ids: Tensor, last: Tensor, w: Weights) -> Tensor:
    x = w["token_embedding.weight"][ids] + w["positional_embedding"][: ids.shape[1]]
    x = norm(blocks(x, w, "", causal=True), w, "ln_final")
    return x[torch.arange(len(x)), last] @ w["text_projection"]


def draw(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(s, generator=generator) * 0.1 for k, s in shapes.items()}


def of_blocks(prefix: str, mlp: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for n in range(DEPTH):
        at = f"{prefix}transformer.resblocks.{n}."
        for part, shape in {
            "attn.in_proj_": (3 * WIDTH, WIDTH),
            "attn.out_proj.": (WIDTH, WIDTH),
            "mlp.c_fc.": (mlp, WIDTH),
            "mlp.c_proj.": (WIDTH, mlp),
        }.items():
            shapes |= {f"{at}{part}weight": shape, f"{at}{part}bias": shape[:1]}
        for part in ("ln_1", "ln_2"):
            shapes |= {f"{at}{part}.weight": (WIDTH,), f"{at}{part}.bias": (WIDTH,)}
    return shapes


TEXT_SHAPES: dict[str, tuple[int, ...]] = {
    "positional_embedding": (77, WIDTH),
    "text_projection": (WIDTH, E),
    "token_embedding.weight": (V, WIDTH),
    "ln_final.weight": (WIDTH,),
    "ln_final.bias": (WIDTH,),
    "logit_scale": (),
    **of_blocks("", 128),
}
VIT_SHAPES: dict[str, tuple[int, ...]] = {
    "visual.class_embedding": (WIDTH,),
    "visual.positional_embedding": (17, WIDTH),
    "visual.proj": (WIDTH, E),
    "visual.conv1.weight": (WIDTH, 3, 16, 16),
    **{f"visual.ln_{p}.{leaf}": (WIDTH,) for p in ("pre", "post") for leaf in ("weight", "bias")},
    **of_blocks("visual.", 256),
}
TEXTS = ["a red cross", "two small green squares above a circle"]


@pytest.fixture(scope="module")
def vit() -> Weights:
    return draw({**VIT_SHAPES, **TEXT_SHAPES})


def saved(weights: Weights, folder: Path, name: str = "weights.pt") -> str:
    torch.save(weights, folder / name)
    return str(folder / name)


def test_a_vit_of_openai_computes_what_its_keys_say(vit: Weights, tmp_path: Path) -> None:
    settings = {
        "input_resolution": torch.tensor(64),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(V),
    }
    model = create_model("clip", "tiny", checkpoint=saved(vit | settings, tmp_path)).eval()
    assert model.load_report.complete
    image, text = torch.randn(2, 3, SIDE, SIDE), model.tokenize(TEXTS)
    last = text.mask.sum(1) - 1
    with torch.no_grad():
        ours = model.project_image(model.encode_image(image))
        torch.testing.assert_close(ours, image_features(image, vit), **CLOSE)
        ours = model.project_text(model.encode_text(text))
        torch.testing.assert_close(ours, text_features(text.ids, last, vit), **CLOSE)
    assert model.temperature.item() == pytest.approx(1 / vit["logit_scale"].exp().item())


def test_the_vector_of_a_text_does_not_depend_on_its_padding(vit: Weights, tmp_path: Path) -> None:
    model = create_model("clip", "tiny", checkpoint=saved(vit, tmp_path)).eval()
    alone = [model.text_embeds(model.encode_text([text])) for text in TEXTS]
    together = model.text_embeds(model.encode_text(TEXTS))
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-6, rtol=0)
    ids, mask = model.tokenize(TEXTS)
    other = ids.masked_fill(mask == 0, 9)
    again = model.text_embeds(model.encode_text(TextBatch(other, mask)))
    torch.testing.assert_close(again, together, atol=1e-6, rtol=0)


def test_half_precision_of_the_released_files_is_read_in_full(vit: Weights, tmp_path: Path) -> None:
    half = {key: value.half() for key, value in vit.items()}
    model = create_model("clip", "tiny", checkpoint=saved(half, tmp_path))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_open_clip_s_names_for_a_timm_tower_and_its_own_text_tower_load(
    vit: Weights, tmp_path: Path
) -> None:
    reference = create_model("clip", "tiny", checkpoint=saved(vit, tmp_path)).eval()
    own = reference.state_dict()
    file = {f"text.{key}": value for key, value in vit.items() if key in TEXT_SHAPES}
    file["logit_scale"] = file.pop("text.logit_scale")
    for key, value in own.items():
        if key.startswith("visual_encoder."):
            file[key.replace("visual_encoder.", "visual.trunk.")] = value
    file["visual.head.proj.weight"] = own["vision_proj.weight"]
    model = create_model("clip", "tiny", checkpoint=saved(file, tmp_path, "open_clip.pt"))
    for key, value in own.items():
        assert torch.equal(model.state_dict()[key], value), key


def test_open_clip_s_siglip_loads(tmp_path: Path) -> None:
    reference = create_model("siglip", "tiny").eval()
    file = {}
    for key, value in reference.state_dict().items():
        tower, _, rest = key.partition(".")
        if tower == "visual_encoder":
            file[f"visual.trunk.{rest}"] = value
        elif tower == "text_proj":
            file[f"text.text_projection.{rest}"] = value
        elif tower == "text_encoder":
            for ours, theirs in {
                "token_embed": "token_embedding",
                "pos_embed": "positional_embedding",
                "blocks": "transformer.resblocks",
                "attn.qkv.": "attn.in_proj_",
                "attn.proj": "attn.out_proj",
                "mlp.fc1": "mlp.c_fc",
                "mlp.fc2": "mlp.c_proj",
                "norm1": "ln_1",
                "norm2": "ln_2",
            }.items():
                rest = rest.replace(ours, theirs)
            file[f"text.{'ln_final' + rest[4:] if rest.startswith('norm.') else rest}"] = value
        else:
            file[key] = value.reshape(1)
    model = create_model("siglip", "tiny", checkpoint=saved(file, tmp_path))
    assert model.load_report.complete
    for key, value in reference.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_a_file_of_something_else_names_what_does_not_fit(vit: Weights, tmp_path: Path) -> None:
    odd = {**vit, "visual.ln_mid.weight": torch.ones(3)}
    with pytest.raises(CheckpointError, match=r"unexpected: visual\.ln_mid\.weight"):
        create_model("clip", "tiny", checkpoint=saved(odd, tmp_path))


# ---- the ResNet over OpenAI's keys

LAYERS = {1: (3, 64), 2: (4, 128), 3: (6, 256), 4: (3, 512)}


def resnet_weights() -> Weights:
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, number: int, out: int, into: int, side: int) -> None:
        shapes[f"visual.{name}conv{number}.weight"] = (out, into, side, side)
        batch_norm(f"{name}bn{number}", out)

    def batch_norm(name: str, width: int) -> None:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"visual.{name}.{leaf}"] = (width,)

    for number, (into, out) in enumerate([(3, 32), (32, 32), (32, 64)], 1):
        conv("", number, out, into, 3)
    into = 64
    for layer, (count, width) in LAYERS.items():
        for block in range(count):
            at = f"layer{layer}.{block}."
            conv(at, 1, width, into, 1)
            conv(at, 2, width, width, 3)
            conv(at, 3, 4 * width, width, 1)
            if block == 0:
                shapes[f"visual.{at}downsample.0.weight"] = (4 * width, into, 1, 1)
                batch_norm(f"{at}downsample.1", 4 * width)
            into = 4 * width
    shapes["visual.attnpool.positional_embedding"] = (5, 2048)
    for part, out in (("q", 2048), ("k", 2048), ("v", 2048), ("c", E)):
        shapes[f"visual.attnpool.{part}_proj.weight"] = (out, 2048)
        shapes[f"visual.attnpool.{part}_proj.bias"] = (out,)
    found = draw(shapes, seed=1)
    for key, value in found.items():
        if key.endswith("running_var"):
            found[key] = value.abs() + 0.5
        elif value.ndim >= 2 and "positional" not in key:
            found[key] = value / value[0].numel() ** 0.5 * 14
        elif key.endswith("weight"):
            found[key] = 1 + value
    return found


def resnet_features(image: Tensor, w: Weights) -> Tensor:
    def step(x: Tensor, name: str, number: int) -> Tensor:
        weight = w[f"visual.{name}conv{number}.weight"]
        return bn(F.conv2d(x, weight, padding=weight.shape[-1] // 2), f"{name}bn{number}")

    def bn(x: Tensor, name: str) -> Tensor:
        leaves = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(w[f"visual.{name}.{leaf}"] for leaf in leaves))

    x = F.conv2d(image, w["visual.conv1.weight"], stride=2, padding=1)
    x = bn(x, "bn1").relu()
    x = F.avg_pool2d(step(step(x, "", 2).relu(), "", 3).relu(), 2)
    for layer, (count, _) in LAYERS.items():
        for block in range(count):
            at, stride = f"layer{layer}.{block}.", 2 if layer > 1 and block == 0 else 1
            inner = step(step(x, at, 1).relu(), at, 2).relu()
            inner = step(F.avg_pool2d(inner, stride), at, 3)
            if block == 0:
                x = F.conv2d(F.avg_pool2d(x, stride), w[f"visual.{at}downsample.0.weight"])
                x = bn(x, f"{at}downsample.1")
            x = (inner + x).relu()
    x = x.flatten(2).transpose(1, 2)  # (B, 4, 2048)
    x = torch.cat([x.mean(1, keepdim=True), x], 1) + w["visual.attnpool.positional_embedding"]
    projected = {
        part: F.linear(
            x, w[f"visual.attnpool.{part}_proj.weight"], w[f"visual.attnpool.{part}_proj.bias"]
        ).unflatten(-1, (32, 64))
        for part in "qkv"
    }
    scores = torch.einsum("bhd,bnhd->bhn", projected["q"][:, 0], projected["k"]) / 8
    pooled = torch.einsum("bhn,bnhd->bhd", scores.softmax(-1), projected["v"]).flatten(1)
    return F.linear(pooled, w["visual.attnpool.c_proj.weight"], w["visual.attnpool.c_proj.bias"])


def test_a_resnet_of_openai_computes_what_its_keys_say(tmp_path: Path) -> None:
    weights = resnet_weights()
    model = create_model(
        "clip",
        "tiny",
        vision={"name": "timm/resnet50_clip"},
        vision_projection="affine",
        checkpoint=saved(weights | draw(TEXT_SHAPES) | counters(weights), tmp_path),
    ).eval()
    assert model.load_report.complete
    image = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = resnet_features(image, weights)
        ours = model.project_image(model.encode_image(image))
    assert expected.std() > 0.1
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_the_positions_of_a_resnet_are_resampled_but_for_the_mean_s() -> None:
    weight, wanted = torch.randn(5, 8), torch.empty(10, 8)
    found = resampled(weight, wanted, 1, (3, 3))
    assert found.shape == (10, 8)
    assert torch.equal(found[0], weight[0])
    grid = weight[1:].T.reshape(1, 8, 2, 2)
    expected = F.interpolate(grid, size=(3, 3), mode="bicubic", align_corners=False)
    torch.testing.assert_close(found[1:].T, expected.reshape(8, 9))


def counters(weights: Weights) -> Weights:
    """Batch norm's counts of batches, which a state dict has too."""
    return {
        key.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
        for key in weights
        if key.endswith("running_mean")
    }
