"""What must not matter: padding, the batch, the cache, one beam or none, the layout of a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lavis_lite import create_model, load_preprocess
from lavis_lite.cli.images import Images
from lavis_lite.losses.answers import answer_losses

TEXTS = [
    "a cat",
    "two small blue circles beside a large red square in the left corner of the picture",
    "one",
    "what colour is the thing below",
    "a",
    "a green star and a cross",
    "how many are there",
    "a picture of three yellow triangles",
]
CLOSE = {"atol": 1e-5, "rtol": 0}


def drawn(name: str) -> Any:
    """A tiny model whose weights are large enough for inputs to matter."""
    generator = torch.Generator().manual_seed(1)
    model = create_model(name, "tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(5))


# ---- padding and the batch


def caption_logits(model: Any, images: Tensor, texts: list[str]) -> list[Tensor]:
    """(T, V) for each row, without what is padding."""
    text = model.tokenizer.encode(texts, 40).replace_first(model.tokenizer.bos_id)
    kv = model.text_decoder.bert.project(model.encode_image(images))
    logits = model.text_decoder(text.ids, text.mask, image_kv=kv)
    return [row[: int(mask.sum())] for row, mask in zip(logits, text.mask, strict=True)]


def matching_logits(model: Any, images: Tensor, texts: list[str]) -> list[Tensor]:
    return list(model.match(model.encode_image(images), texts))


def answer_logits(model: Any, images: Tensor, texts: list[str]) -> list[Tensor]:
    """How badly three answers of different lengths fit each question."""
    states, mask = model.read_questions(model.encode_image(images), model.tokenize(texts))
    answers = model.tokenize_answers(["yes", "in the left corner", "two"] * len(texts))
    kv = model.text_decoder.bert.project(states)
    return list(answer_losses(model, kv, mask, answers, 0.1).view(len(texts), -1))


def text_features(model: Any, images: Tensor, texts: list[str]) -> list[Tensor]:
    return list(model.text_embeds(model.encode_text(texts)))


def image_features(model: Any, images: Tensor, texts: list[str]) -> list[Tensor]:
    return list(model.image_embeds(model.encode_image(images)))


WAYS: list[tuple[str, Callable[[Any, Tensor, list[str]], list[Tensor]]]] = [
    ("blip_caption", caption_logits),
    ("blip_image_text_matching", matching_logits),
    ("blip_vqa", answer_logits),
    ("blip_retrieval", text_features),
    ("blip_retrieval", image_features),
]


@pytest.mark.fault(54)
@pytest.mark.parametrize(("name", "compute"), WAYS, ids=lambda x: getattr(x, "__name__", x))
def test_a_row_is_computed_alone_as_among_longer_ones(
    name: str, compute: Callable[[Any, Tensor, list[str]], list[Tensor]], images: Tensor
) -> None:
    model = drawn(name)
    with torch.no_grad():
        together = compute(model, images, TEXTS)
        alone = [compute(model, images[r : r + 1], [TEXTS[r]])[0] for r in range(8)]
    for row, own in zip(together, alone, strict=True):
        torch.testing.assert_close(row, own, **CLOSE)
    flat = torch.stack([row.flatten()[:3] for row in together])
    assert flat.std(dim=0).min() > 1e-3, "rows that are all alike compare nothing"


@pytest.mark.fault(54)
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"method": "nucleus"}])
def test_a_caption_is_written_alone_as_among_others(
    options: dict[str, Any], images: Tensor
) -> None:
    model, lengths = drawn("blip_caption"), {"max_length": 14, "min_length": 6}

    def write(rows: list[int]) -> list[str]:
        seeds = {"seeds": [11 + r for r in rows]} if "method" in options else {}
        return model.generate({"image": images[rows]}, **lengths, **options, **seeds)

    together = write(list(range(8)))
    assert together == [write([row])[0] for row in range(8)]
    assert len(set(together)) > 1


# ---- one beam, no cache, lengths


@pytest.mark.fault(55)
@pytest.mark.parametrize(("shortest", "longest"), [(1, 12), (8, 12), (6, 6)])
def test_one_beam_with_a_cache_is_the_likeliest_token_without_one(
    shortest: int, longest: int, images: Tensor
) -> None:
    model = drawn("blip_caption")
    model.text_decoder.cls.predictions.bias.data[model.tokenizer.sep_id] += 1.5
    ids: list[list[int]] = []
    decode = model.tokenizer.decode
    model.tokenizer.decode = lambda row: ids.append([int(i) for i in row]) or decode(row)
    model.generate({"image": images}, num_beams=1, max_length=longest, min_length=shortest)
    with torch.no_grad():
        expected = [greedy(model, image[None], shortest, longest) for image in images]
    assert ids == expected
    prompt = model.prompt_length
    assert all(shortest <= len(row) + prompt <= longest for row in ids)


def greedy(model: Any, image: Tensor, shortest: int, longest: int) -> list[int]:
    """The caption's ids by hand: the whole text anew for every token."""
    tokenizer = model.tokenizer
    text = tokenizer.encode([model.prompt], 40).ids[:, :-1].clone()
    text[:, 0] = tokenizer.bos_id
    prompt = text.shape[1]
    kv = model.text_decoder.bert.project(model.encode_image(image))
    while text.shape[1] < longest:
        logits = model.text_decoder(text, image_kv=kv)[0, -1]
        if text.shape[1] < shortest:
            logits[tokenizer.sep_id] = -torch.inf
        best = int(logits.argmax())
        if best == tokenizer.sep_id:
            break
        text = torch.cat([text, torch.tensor([[best]])], dim=1)
    return text[0, prompt:].tolist()


# ---- the same weights in three layouts


def original(model: Any, folder: Path) -> str:
    """As salesforce/BLIP saves: a pickle with the weights under ``model``."""
    torch.save({"model": model.state_dict()}, folder / "original.pth")
    return str(folder / "original.pth")


def of_lavis(model: Any, folder: Path) -> str:
    """As LAVIS's runner saves: training state beside the weights, and counters of older BERTs."""
    weights = dict(model.state_dict())
    for key in list(weights):
        if key.endswith("embeddings.position_embeddings.weight"):
            counter = key.replace("position_embeddings.weight", "position_ids")
            weights[counter] = torch.arange(len(weights[key]))[None]
    optimizer = torch.optim.AdamW(model.parameters())
    state = {"model": weights, "optimizer": optimizer.state_dict(), "scaler": None, "epoch": 3}
    torch.save(state, folder / "checkpoint_3.pth")
    return str(folder / "checkpoint_3.pth")


def of_transformers(model: Any, folder: Path) -> str:
    """As transformers saves: its names, safetensors and a config."""
    return str(model.save_transformers(folder / "transformers"))


@pytest.mark.fault(56)
@pytest.mark.parametrize("layout", [original, of_lavis, of_transformers])
@pytest.mark.parametrize(("name", "compute"), WAYS[:3], ids=lambda x: getattr(x, "__name__", x))
def test_the_same_weights_compute_the_same_in_every_layout(
    name: str, compute: Any, layout: Any, images: Tensor, tmp_path: Path
) -> None:
    model = drawn(name)
    again = create_model(name, "tiny", checkpoint=layout(model, tmp_path)).eval()
    with torch.no_grad():
        for own, read in zip(
            compute(model, images, TEXTS), compute(again, images, TEXTS), strict=True
        ):
            torch.testing.assert_close(read, own, **CLOSE)
    if name == "blip_caption":
        options = {"num_beams": 3, "max_length": 14, "min_length": 6}
        captions = [m.generate({"image": images}, **options) for m in (model, again)]
        assert captions[0] == captions[1]
        assert len(set(captions[0])) > 1


# ---- memory


@pytest.mark.slow
@pytest.mark.fault(53)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_captioning_ten_thousand_pictures_takes_no_more_memory_than_two_thousand(
    tmp_path: Path,
) -> None:
    for number in range(10_000):
        colour = (number % 256, number // 256, 7)
        Image.new("RGB", (40, 32), colour).save(tmp_path / f"{number:05}.png")
    model = create_model("blip_caption", "tiny").eval()
    eval_image = {"eval": {"name": "blip_image_eval", "image_size": 64}}
    processor = load_preprocess({"vis_processor": eval_image})[0]["eval"]
    captions, sizes = 0, []
    for batch in Images([str(tmp_path)]).batches(processor, 40):
        captions += len(
            model.generate({"image": batch.pixels}, num_beams=1, max_length=7, min_length=4)
        )
        if captions % 1000 == 0:
            sizes.append(resident_mib())
    assert captions == 10_000
    after_warm_up = sizes[1:]
    growth = (after_warm_up[-1] - after_warm_up[0]) / (len(after_warm_up) - 1)
    assert growth < 1, f"MiB per 1000 pictures; {sizes}"


def resident_mib() -> float:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
