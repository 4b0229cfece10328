"""Models of transformers as captioners: their own pixels, seeded draws, answers without prompts."""

from __future__ import annotations

import json

import pytest
import torch
from hf_models import WORDS, save_blip
from PIL import Image

from lavis_lite import registry, runners
from lavis_lite.errors import CheckpointError


@pytest.fixture(scope="module")
def hf_folder(tmp_path_factory):
    """A random BLIP of transformers with its processor."""
    return save_blip(tmp_path_factory.mktemp("hf"))


@pytest.fixture
def hf_captioner(hf_folder):
    spec = {"name": "hf_captioner", "source": str(hf_folder), "image_size": 32}
    return registry.build("model", spec).eval()


def test_a_captioner_of_transformers_draws_by_the_seed_and_not_by_the_batch(hf_captioner):
    image = torch.rand(3, 3, 32, 32)
    options = {"num_captions": 2, "max_new_tokens": 8}
    together = hf_captioner.generate({"image": image}, seeds=[1, 2, 3], **options)
    alone = hf_captioner.generate({"image": image[1:2]}, seeds=[2], **options)
    assert len(together) == 6
    assert together[2:4] == alone
    assert alone[0] != alone[1]
    other = hf_captioner.generate({"image": image[1:2]}, seeds=[4], **options)
    assert other != alone


def test_a_captioner_of_transformers_gets_the_pixels_that_its_own_processor_would(hf_captioner):
    process = registry.build(
        "processor",
        {"name": "blip_image_eval", "image_size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]},
    )
    picture = Image.effect_mandelbrot((32, 32), (-3, -2.5, 2, 2.5), 100).convert("RGB")
    inner = hf_captioner.model
    inputs = hf_captioner.processor(images=[picture], return_tensors="pt")
    greedy = inner.generate(**inputs, max_new_tokens=8, do_sample=False)
    expected = hf_captioner.processor.batch_decode(greedy, skip_special_tokens=True)[0].strip()
    image = process(picture)[None]
    options = {"method": "greedy", "max_new_tokens": 8}
    assert hf_captioner.generate({"image": image}, **options) == [expected]
    assert torch.equal(
        hf_captioner._inputs([(image[0] * 255).round().to(torch.uint8)])["pixel_values"],
        inputs["pixel_values"],
    )


def test_models_with_different_processors_share_one_decoding(load, records, hf_folder, tmp_path):
    captioner = f"captioner={{name: hf_captioner, source: {hf_folder}, image_size: 32}}"
    options = "captioner.generate={method: beam, num_captions: 2, max_new_tokens: 6}"
    runners.run(load("out", captioner, options, "data.source.size=6"))
    found = records(tmp_path / "out")
    assert all(len(r["synthetic"]) == 2 and all(r["synthetic"]) for r in found)
    runners.run(load("toys", "data.source.size=6"))
    web = [r["scores"]["web"] for r in records(tmp_path / "toys")]
    assert [r["scores"]["web"] for r in found] == web  # the filter still sees its own 4 x 4


def test_the_prompt_is_asked_and_not_handed_out(hf_folder):
    spec = {"name": "hf_captioner", "source": str(hf_folder), "image_size": 32, "prompt": "ab cd"}
    asked = registry.build("model", spec).eval()
    image = torch.rand(2, 3, 32, 32)
    texts = asked.generate({"image": image}, method="greedy", max_new_tokens=6)
    inputs = asked._inputs([(one * 255).round().to(torch.uint8) for one in image])
    found = asked.model.generate(**inputs, max_new_tokens=6, do_sample=False)
    whole = asked.processor.batch_decode(found, skip_special_tokens=True)
    assert [f"ab cd{text}".replace(" ", "") for text in texts] == [
        w.replace(" ", "") for w in whole
    ]
    assert all(texts)


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory):
    """A random LLaVA with a chat template."""
    from transformers import (
        BertTokenizerFast,
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    folder = tmp_path_factory.mktemp("chat")
    (folder / "vocab.txt").write_text("\n".join([*WORDS, "<image>", ":"]))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2}
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**shape, image_size=32, patch_size=16),
        text_config=LlamaConfig(
            **shape, vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=2, eos_token_id=3,
            num_key_value_heads=2,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    template = (
        "{% for m in messages %}{{ m['role'] }} : {% for part in m['content'] %}"
        "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %} helper : {% endif %}"
    )
    LlavaProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="default",
        chat_template=template, num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.mark.parametrize("prompt", ["", "say it"])
def test_a_chat_model_answers_and_does_not_repeat_what_it_was_asked(chat_folder, prompt):
    spec = {"name": "hf_captioner", "source": str(chat_folder), "image_size": 32, "prompt": prompt}
    model = registry.build("model", spec).eval()
    image = torch.rand(2, 3, 32, 32)
    options = {"max_new_tokens": 5, "num_captions": 2}
    texts = model.generate({"image": image}, seeds=[1, 2], **options)
    assert len(texts) == 4
    assert len(set(texts)) > 1
    # Five new tokens, each a letter or two dozen of them at most: nothing of the question.
    assert all(len(text.split()) <= 5 and "user" not in text.replace(" ", "") for text in texts)
    assert model.generate({"image": image[1:]}, seeds=[2], **options) == texts[2:]


@pytest.mark.parametrize("content", [{}, {"model_type": "bert"}])
def test_a_folder_without_such_a_model_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="no image-text-to-text model of transformers"):
        registry.build("model", {"name": "hf_captioner", "source": str(tmp_path)})
