"""What becomes of images and texts before the towers see them, against transformers' processors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench_dual import dual
from bench_models import batch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from lavis_lite import create_model, registry
from lavis_lite.errors import ConfigError

transformers = pytest.importorskip("transformers")

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.!"
HALF = [0.5, 0.5, 0.5]


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("size", [(50, 70), (97, 33), (32, 32), (20, 25)])
def test_clip_s_images_are_those_of_transformers(size: tuple[int, int]) -> None:
    theirs = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    ours = registry.build("processor", {"name": "clip_image_eval"}, image_size=32)
    expected = theirs(picture(*size), return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(ours(picture(*size)), expected, atol=1e-5, rtol=0)


def test_a_wide_image_is_the_middle_of_the_square_one() -> None:
    size = {"image_size": [24, 48]}
    wide = registry.build("processor", {"name": "clip_image_eval"}, **size)(picture(60, 60))
    square = registry.build("processor", {"name": "clip_image_eval"}, image_size=48)
    assert torch.equal(wide, square(picture(60, 60))[:, 12:36])


@pytest.mark.parametrize("size", [[64], [64, 0], -1])
def test_an_image_size_is_one_side_or_two(size: Any) -> None:
    with pytest.raises(ConfigError, match=r"image_size: .*; the side of a square, or \[height, w"):
        registry.build("processor", {"name": "clip_image_eval"}, image_size=size)


def test_siglip_s_images_are_those_of_transformers() -> None:
    theirs = transformers.SiglipImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=HALF, image_std=HALF, resample=3
    )
    spec = {"name": "blip_image_eval", "mean": HALF, "std": HALF}
    ours = registry.build("processor", spec, image_size=32)
    expected = theirs(picture(50, 70), return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(ours(picture(50, 70)), expected, atol=1e-5, rtol=0)


def test_pictures_without_three_colours_become_rgb() -> None:
    ours = registry.build("processor", {"name": "clip_image_eval"}, image_size=16)
    assert torch.equal(ours(picture(20, 30, "L")), ours(picture(20, 30, "L").convert("RGB")))
    train = registry.build("processor", {"name": "clip_image_train"}, image_size=16)
    assert train(picture(20, 30, "RGBA"), np.random.default_rng(0)).shape == (3, 16, 16)


def test_a_crop_of_an_impossible_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_scale=0, max_scale=1.0; 0 < min_scale"):
        registry.build("processor", {"name": "clip_image_train", "min_scale": 0}, image_size=16)


@pytest.fixture
def bpe(tmp_path: Path) -> str:
    """A folder with a vocabulary of CLIP's kind: letters, and a few merges."""
    merges = ["r e", "re d</w>", "c r", "cr o", "s s</w>", "cro ss</w>"]
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    pieces += [merge.replace(" ", "") for merge in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    pairs = [tuple(merge.split()) for merge in merges]
    transformers.CLIPTokenizer(vocab=vocab, merges=pairs).save_pretrained(tmp_path)
    return f"hf/{tmp_path}"


def test_clip_s_vocabulary_is_read_from_a_folder(bpe: str) -> None:
    model = dual("clip", tokenizer=bpe, max_length=8)
    theirs = transformers.AutoTokenizer.from_pretrained(bpe.removeprefix("hf/"))
    texts = ["A red cross!", "red", "a red cross and a red cross"]
    ids, mask = model.tokenize(texts)
    expected = theirs(texts, padding=True, truncation=True, max_length=8, return_tensors="pt")
    assert torch.equal(ids, expected.input_ids)
    assert torch.equal(mask, expected.attention_mask)
    ends = ids[torch.arange(3), mask.sum(1) - 1]
    assert (ends == theirs.eos_token_id).all()  # also of the text that was cut
    assert len(model.tokenizer) == len(theirs) == model.text_encoder.token_embed.num_embeddings
    model(batch(4)).loss.backward()


def test_a_saved_model_takes_its_vocabulary_along(bpe: str, tmp_path: Path) -> None:
    model = dual("clip", tokenizer=bpe, max_length=8).eval()
    moved = model.save_pretrained(tmp_path / "saved").rename(tmp_path / "moved")
    again = create_model(checkpoint=str(moved)).eval()
    assert again.tokenizer.vocab == model.tokenizer.vocab
    texts = ["a red cross", "cross"]
    embeds = [one.text_embeds(one.encode_text(texts)) for one in (model, again)]
    assert torch.equal(*embeds)


def test_an_end_token_that_a_caption_spells_out_does_not_end_it(bpe: str) -> None:
    model = dual("clip", tokenizer=bpe, max_length=30)
    (row,) = model.tokenize(["a <|endoftext|> red"]).ids.tolist()
    assert row.count(model.tokenizer.sep_id) == 1 or row.index(model.tokenizer.sep_id) > 1
    assert row[-1] == model.tokenizer.sep_id


@pytest.fixture
def unigram(tmp_path: Path) -> str:
    """A folder with a vocabulary of SigLIP's kind: unigrams, an end token that is padding too."""
    words = [("<unk>", 0.0), ("</s>", 0.0), *((f"▁{word}", -2.0) for word in ("a", "red", "cross"))]
    words += [("▁", -8.0), *((letter, -9.0) for letter in LETTERS)]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=0))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path)
    return f"hf/{tmp_path}"


def test_siglip_s_vocabulary_is_read_and_padded_to_the_full_length(unigram: str) -> None:
    model = dual("siglip", tokenizer=unigram, text={"max_length": 10, "reads_padding": True})
    theirs = transformers.AutoTokenizer.from_pretrained(unigram.removeprefix("hf/"))
    texts = ["A red cross", "cross"]
    ids, mask = model.tokenize(texts)
    options: dict[str, Any] = {"padding": "max_length", "max_length": 10, "truncation": True}
    assert torch.equal(ids, theirs(texts, **options, return_tensors="pt").input_ids)
    assert mask.all()
    model(batch(4)).loss.backward()


def test_a_vocabulary_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(ConfigError, match=f"hf/{tmp_path} has no vocabulary, only"):
        dual("clip", tokenizer=f"hf/{tmp_path}")
