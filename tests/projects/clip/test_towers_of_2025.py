"""SigLIP 2 and Perception Encoder: their vocabularies, processors and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models.eva import checkpoint_filter_fn
from torch import Tensor

from lavis_lite import create_model, load_model_and_preprocess, registry
from lavis_lite.errors import DownloadError
from lavis_lite.models.zoo import processors_of
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.registry import cards

transformers = pytest.importorskip("transformers")

TEXTS = ["A red Cross!", "two small green squares above a circle"]
CLOSE = {"atol": 1e-4, "rtol": 0}
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.!"
PE_TYPES = [type for type in cards.types("clip") if type.startswith("PE-Core")]
SIGLIP2_TYPES = [type for type in cards.types("siglip") if type.startswith("siglip2")]
PERCEPTION = {
    "vision": {"name": "timm/vit_pe_core_base_patch16_224", "embed_dim": 64, "depth": 2,
               "num_heads": 4},
    "text": {"name": "clip_text", "width": 64, "depth": 2, "num_heads": 4, "mlp_width": 256,
             "max_length": 32, "activation": "gelu"},
    "embed_width": 32,
    "image_size": 64,
}  # fmt: skip


# ---- SigLIP 2


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a vocabulary of Gemma's kind, as SigLIP 2's repositories have it."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, "▁", *LETTERS, "re", "red"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = transformers.GemmaTokenizer(
        vocab=vocab, merges=[("r", "e"), ("re", "d")], add_bos_token=False, add_eos_token=True
    )
    folder = tmp_path_factory.mktemp("gemma")
    tokenizer.save_pretrained(folder)
    return str(folder)


def siglip2(gemma: str, **overrides: Any) -> Any:
    return create_model("siglip", "tiny", tokenizer=f"hf/{gemma}", **overrides).eval()


@pytest.mark.parametrize("type", SIGLIP2_TYPES)
def test_texts_of_siglip_2_are_those_of_its_tokenizer_in_transformers(
    type: str, gemma: str
) -> None:
    theirs = transformers.Siglip2Tokenizer.from_pretrained(gemma)  # lowers the case itself
    _, texts = processors_of({"name": "siglip", "type": type}, 32)
    ours = siglip2(gemma).tokenize([texts["eval"](text) for text in TEXTS])
    expected = theirs(
        TEXTS, padding="max_length", padding_side="right", max_length=32, truncation=True,
        return_tensors="pt",
    )  # fmt: skip
    assert torch.equal(ours.ids, expected.input_ids)
    assert ours.ids[0, -1] == theirs.pad_token_id
    assert ours.mask.all()


def test_the_first_siglip_keeps_the_case_of_its_texts() -> None:
    _, texts = processors_of({"name": "siglip", "type": "B-16"}, 32)
    assert texts["eval"](TEXTS[0]) == TEXTS[0]


def test_a_fixed_size_siglip_2_of_transformers_computes_the_same(
    gemma: str, tmp_path: Path
) -> None:
    words = len(load_tokenizer(f"hf/{gemma}", added=()))
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = transformers.SiglipConfig(
        vision_config={**sizes, "intermediate_size": 256, "image_size": 64, "patch_size": 16},
        text_config={**sizes, "intermediate_size": 128, "vocab_size": words,
                     "max_position_embeddings": 32},
    )  # fmt: skip
    theirs = transformers.SiglipModel(config).eval()
    with torch.no_grad():
        for key, parameter in theirs.named_parameters():
            if "logit" not in key:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(tmp_path)
    ours = siglip2(gemma, checkpoint=str(tmp_path))
    assert ours.load_report.complete
    image, text = torch.randn(2, 3, 64, 64), ours.tokenize(TEXTS)
    with torch.no_grad():
        expected = theirs(input_ids=text.ids, pixel_values=image).logits_per_image
        found = ours.rank(ours.encode_image(image), TEXTS)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_without_a_network_the_vocabulary_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(DownloadError) as caught:
        create_model("siglip", "siglip2-B-16-256")
    for part in ("hf/google/siglip2-base-patch16-256", "tokenizer=hf/FOLDER", "tokenizer.json"):
        assert part in str(caught.value)


# ---- Perception Encoder


def perception_file(seed: int = 0) -> dict[str, Tensor]:
    """Weights under the names of Meta's files, with every number drawn anew."""
    shapes: dict[str, tuple[int, ...]] = {
        "visual.conv1.weight": (64, 3, 16, 16),
        "visual.class_embedding": (64,),
        "visual.positional_embedding": (17, 64),
        "visual.proj": (64, 32),
        "visual.attn_pool.probe": (1, 1, 64),
        "visual.attn_pool.attn.in_proj_weight": (192, 64),
        "visual.attn_pool.attn.in_proj_bias": (192,),
        **linear("visual.attn_pool.attn.out_proj", 64, 64),
        **linear("visual.attn_pool.mlp.c_fc", 256, 64),
        **linear("visual.attn_pool.mlp.c_proj", 64, 256),
        "token_embedding.weight": (len(load_tokenizer()), 64),
        "positional_embedding": (32, 64),
        "text_projection": (64, 32),
        "logit_scale": (),
    }
    for name in ("visual.ln_pre", "visual.ln_post", "visual.attn_pool.layernorm", "ln_final"):
        shapes |= {f"{name}.weight": (64,), f"{name}.bias": (64,)}
    for tower in ("visual.transformer", "transformer"):
        for number in range(2):
            at = f"{tower}.resblocks.{number}."
            shapes |= {f"{at}attn.in_proj_weight": (192, 64), f"{at}attn.in_proj_bias": (192,)}
            shapes |= linear(f"{at}attn.out_proj", 64, 64)
            shapes |= linear(f"{at}mlp.c_fc", 256, 64) | linear(f"{at}mlp.c_proj", 64, 256)
            for name in ("ln_1", "ln_2"):
                shapes |= {f"{at}{name}.weight": (64,), f"{at}{name}.bias": (64,)}
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) * 0.1 for key, shape in shapes.items()}


def linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def test_a_file_of_perception_encoder_gives_the_features_of_timm_s_own_conversion(
    tmp_path: Path,
) -> None:
    file = perception_file()
    torch.save(file, tmp_path / "pe.pt")
    ours = create_model("clip", "tiny", checkpoint=str(tmp_path / "pe.pt"), **PERCEPTION).eval()
    assert ours.load_report.complete
    theirs: Any = timm.create_model(
        "vit_pe_core_base_patch16_224",
        embed_dim=64, depth=2, num_heads=4, num_classes=32, img_size=64,
    ).eval()  # fmt: skip
    vision = {key: value for key, value in file.items() if key.startswith("visual.")}
    theirs.load_state_dict(checkpoint_filter_fn(vision, theirs))
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found, expected = ours.project_image(ours.encode_image(image)), theirs(image)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, **CLOSE)


def test_a_text_of_perception_encoder_is_read_as_transformers_reads_one_of_clip(
    tmp_path: Path,
) -> None:
    file, words = perception_file(), load_tokenizer()
    torch.save(file, tmp_path / "pe.pt")
    ours = create_model("clip", "tiny", checkpoint=str(tmp_path / "pe.pt"), **PERCEPTION).eval()
    config = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32, hidden_act="gelu", projection_dim=32,
        eos_token_id=words.sep_id,
    )  # fmt: skip
    theirs = transformers.CLIPTextModelWithProjection(config).eval()
    theirs.load_state_dict({**theirs.state_dict(), **of_transformers(file)})
    text = ours.tokenize(TEXTS)
    with torch.no_grad():
        expected = theirs(input_ids=text.ids).text_embeds
        found = ours.project_text(ours.encode_text(TEXTS))
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, **CLOSE)


def of_transformers(file: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text tower of a file under transformers' names."""
    found = {
        "text_model.embeddings.token_embedding.weight": file["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": file["positional_embedding"],
        "text_model.final_layer_norm.weight": file["ln_final.weight"],
        "text_model.final_layer_norm.bias": file["ln_final.bias"],
        "text_projection.weight": file["text_projection"].T,
    }
    parts = {
        "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    }  # fmt: skip
    for number in range(2):
        theirs, ours = f"text_model.encoder.layers.{number}.", f"transformer.resblocks.{number}."
        for leaf in ("weight", "bias"):
            merged = file[f"{ours}attn.in_proj_{leaf}"].chunk(3)
            for letter, part in zip("qkv", merged, strict=True):
                found[f"{theirs}self_attn.{letter}_proj.{leaf}"] = part
            for name, other in parts.items():
                found[f"{theirs}{other}.{leaf}"] = file[f"{ours}{name}.{leaf}"]
    return found


def test_open_clip_s_file_of_a_perception_encoder_loads_and_agrees(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip", reason="open_clip is no part of the environment")
    text_config = {"context_length": 32, "vocab_size": len(load_tokenizer()), "width": 64}
    theirs = open_clip.CustomTextCLIP(
        32,
        {"image_size": 224, "timm_model_name": "vit_pe_core_tiny_patch16_384",
         "timm_pool": "map", "timm_proj": None},
        {**text_config, "heads": 4, "layers": 2},
    ).eval()  # fmt: skip
    theirs.visual.trunk.head.bias.data.zero_()
    torch.save(theirs.state_dict(), tmp_path / "open_clip.pt")
    arguments = {**PERCEPTION, "image_size": 384}
    arguments["vision"] = {"name": "timm/vit_pe_core_tiny_patch16_384"}
    ours = create_model("clip", "tiny", checkpoint=str(tmp_path / "open_clip.pt"), **arguments)
    assert ours.eval().load_report.complete
    image, text = torch.randn(1, 3, 384, 384), ours.tokenize(TEXTS)
    # open_clip reads a text at its highest id, which the end token has in CLIP's vocabulary only.
    last = text.mask.sum(1) - 1
    with torch.no_grad():
        torch.testing.assert_close(
            ours.project_image(ours.encode_image(image)), theirs.encode_image(image), **CLOSE
        )
        theirs.text.pool_type = "none"
        padded = torch.nn.functional.pad(text.ids, (0, 32 - text.ids.shape[1]))
        states = theirs.text(padded)  # (2, 32, E): projected, unpooled
        expected = states[torch.arange(2), last]
        torch.testing.assert_close(ours.project_text(ours.encode_text(TEXTS)), expected, **CLOSE)


def test_a_bias_that_is_not_zero_is_not_dropped(tmp_path: Path) -> None:
    file = perception_file()
    torch.save({**file, "visual.trunk.head.bias": torch.ones(32)}, tmp_path / "pe.pt")
    with pytest.raises(ValueError, match=r"unexpected: vision_proj\.bias"):
        create_model("clip", "tiny", checkpoint=str(tmp_path / "pe.pt"), **PERCEPTION)


@pytest.mark.parametrize("type", PE_TYPES)
def test_a_type_of_perception_encoder_has_the_sizes_that_timm_released(type: str) -> None:
    name = cards.preset("clip", type)["vision"]["name"].removeprefix("timm/")
    released = timm.get_pretrained_cfg(f"{name}.fb")
    arguments = {"embed_width": 512, "image_size": 224, **cards.preset("clip", type)}
    assert arguments["embed_width"] == released.num_classes
    assert arguments["image_size"] == released.input_size[1]
    images, _ = processors_of({"name": "clip", "type": type}, arguments["image_size"])
    assert images["eval"](Image.new("RGB", (8, 8), "white")).max() == 1
    assert images["eval"](Image.new("RGB", (8, 8), "black")).min() == -1


def test_an_image_of_perception_encoder_is_stretched_and_bilinear() -> None:
    from torchvision.transforms import InterpolationMode, v2

    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    images, _ = processors_of({"name": "clip", "type": "PE-Core-B-16"}, 32)
    resized = v2.functional.resize(picture, [32, 32], InterpolationMode.BILINEAR)
    expected = v2.functional.pil_to_tensor(resized) / 127.5 - 1
    torch.testing.assert_close(images["eval"](picture), expected, atol=1e-5, rtol=0)
    train = images["train"](picture, np.random.default_rng(0))
    assert train.shape == (3, 32, 32)
    assert train.min() < -0.5


# ---- processors of a type


def test_a_saved_model_takes_along_the_processors_of_its_type(gemma: str, tmp_path: Path) -> None:
    model = create_model("siglip", "tiny", tokenizer=f"hf/{gemma}")
    model.card = {**model.card, "type": "siglip2-B-16-256"}
    folder = model.save_pretrained(tmp_path)
    _, _, texts = load_model_and_preprocess(checkpoint=str(folder))
    assert texts["eval"]("A Red") == texts["train"]("A Red") == "a red"


def test_clip_s_caption_lowers_the_case_only_if_told() -> None:
    kept = registry.build("processor", {"name": "clip_caption"})
    lowered = registry.build("processor", {"name": "clip_caption", "lowercase": True})
    assert (kept(" A  Red &amp; B"), lowered(" A  Red &amp; B")) == ("A Red & B", "a red & b")
