"""blip2_opt and blip2_t5 against what the published code computes, and what they take and give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.errors import ConfigError

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "blip2_tiny.json").read_text())
Weights = Callable[[dict[str, list[int]], dict[str, str]], dict[str, Tensor]]
PREFIX_LM = {"lm": {"name": "prefix_lm"}}


def images(count: int, seed: int) -> Tensor:
    numbers = np.random.Generator(np.random.PCG64(seed)).standard_normal((count, 3, 56, 56))
    return torch.from_numpy(numbers.astype(np.float32))


def language_folder(kind: str, folder: Path) -> Path:
    """The recorded language model's config, and a tokenizer that splits its words at spaces."""
    settings = {"opt": transformers.OPTConfig, "t5": transformers.T5Config}[kind]
    settings(**GOLDEN[f"{kind}_config"]).save_pretrained(folder)
    words = {word: index for index, word in enumerate(GOLDEN["words"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    # T5's own vocabulary is another one: there `<pad>` ends a text and the first word pads.
    ids = {"opt": ("<pad>", "</s>"), "t5": ("<s>", "<pad>")}[kind]
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token=ids[0], eos_token=ids[1]
    ).save_pretrained(folder)
    return folder


def published(kind: str, weights: Weights, folder: Path, **args: object) -> Any:
    """The model of a golden entry with its weights, and where its decoded ids go."""
    language: dict[str, object] = {"name": f"hf/{language_folder(kind, folder)}"}
    own: dict[str, object]
    if kind == "opt":
        own = {**language, "start": "</s>", "end": "\n"}
    else:
        own = {**language, "config": {"dense_act_fn": "gelu"}}
    model: Any = create_model(f"blip2_{kind}", "tiny", language=own, losses=PREFIX_LM, **args)
    load_state(model, weights(GOLDEN[kind]["layout"], GOLDEN[kind]["alias"]))
    model.ids = []
    decode = model.language.tokens.decode
    model.language.tokens.decode = lambda row: model.ids.append(list(row)) or decode(row)
    return model.eval()


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_projected_queries_loss_and_what_trains_are_as_published(
    kind: str, golden_weights: Weights, tmp_path: Path
) -> None:
    recorded = GOLDEN[kind]
    prompt = {"prompt": "a photo of"} if kind == "opt" else {}
    model = published(kind, golden_weights, tmp_path, **prompt)
    image = images(2, recorded["image_seed"])
    projected = model.prefix(model.encode_image(image))[0, :, :8].detach()
    wanted = torch.tensor(recorded["projected_of_0"])
    torch.testing.assert_close(projected, wanted, rtol=2e-4, atol=2e-4)
    texts = {"text_input": recorded["texts"]}
    if kind == "t5":
        texts = {"text_input": recorded["prompts"], "text_output": recorded["texts"]}
    output = model({"image": image, **texts})
    assert output.loss.item() == pytest.approx(recorded["loss"], rel=2e-4)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    rename = {"query_tokens": "Qformer.query_tokens"}
    published_names = {
        rename.get(name, name.replace(f"{kind}_proj", "language_proj"))
        for name in recorded["trains"]
    }
    assert {n for n in trained if not n.startswith("Qformer.bert")} == published_names
    output.loss.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if n in published_names)
    assert all(p.grad is None for p in model.language.parameters())


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_texts_and_answers_have_the_published_ids(
    kind: str, beams: int, golden_weights: Weights, tmp_path: Path
) -> None:
    recorded = GOLDEN[kind]
    model = published(kind, golden_weights, tmp_path)
    image = images(2, recorded["image_seed"])
    # Lengths count new tokens here; the recorded ones count a start token too, of T5's minimum.
    most, prompts = (11, recorded["prompts"][0]) if kind == "opt" else (12, recorded["prompts"])
    model.generate(
        {"image": image, "prompt": prompts}, num_beams=beams, max_length=most, min_length=3
    )
    assert model.ids == [row[1:] for row in recorded[f"generate_{beams}"]]
    model.ids.clear()
    asked = {"image": image, "text_input": recorded["prompts"]}
    model.predict_answers(asked, num_beams=beams, max_len=6, min_len=2)
    assert model.ids == [row[1:] for row in recorded[f"answers_{beams}"]]


@pytest.mark.parametrize("name", ["blip2_opt", "blip2_t5"])
def test_texts_depend_on_their_own_image_prompt_and_seed_alone(name: str) -> None:
    torch.manual_seed(0)
    model: Any = create_model(name, "tiny").eval()
    image = images(3, 5)
    prompts = ["a photo of", "", "the colour of the large square is"]
    for options in ({"num_beams": 3, "num_captions": 2}, {"method": "nucleus", "seeds": [1, 2, 3]}):
        each = options.get("num_captions", 1)
        samples = {"image": image, "prompt": prompts}
        together = model.generate(samples, max_length=5, **options)
        assert len(together) == 3 * each
        for row in range(3):
            own = {**options, **({"seeds": [row + 1]} if "seeds" in options else {})}
            alone = {"image": image[row : row + 1], "prompt": prompts[row]}
            texts = model.generate(alone, max_length=5, **own)
            assert texts == together[row * each : (row + 1) * each]


@pytest.mark.parametrize("name", ["blip2_opt", "blip2_t5"])
def test_answers_can_be_ranked_and_candidates_are_in_order_of_probability(name: str) -> None:
    torch.manual_seed(0)
    model: Any = create_model(name, "tiny", answer_prompt="question {} answer").eval()
    image, candidates = images(2, 5), ["red", "a blue square", "two"]
    asked = {"image": image, "prompt": ["question what is it answer"] * 2}
    ranks = model.predict_class(asked, candidates)
    assert [sorted(row) for row in ranks.tolist()] == [[0, 1, 2]] * 2
    with torch.no_grad():
        tokens = model.encode_image(image)
        for row in range(2):
            sums = []
            for text in candidates:
                one = {"text_input": [asked["prompt"][row]], "text_output": [text]}
                logits, targets = model.text_logits(tokens[row : row + 1], one)
                log_p = logits.log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
                sums.append(log_p[targets >= 0].sum())
            assert ranks[row].tolist() == torch.stack(sums).argsort(descending=True).tolist()
    questions = {"image": image, "text_input": ["what is it"] * 2}
    best = model.predict_answers(questions, inference_method="rank", answer_list=candidates)
    assert best == [candidates[row[0]] for row in ranks.tolist()]
    with pytest.raises(ConfigError, match="answer_list"):
        model.predict_answers(questions, inference_method="rank")


def test_a_prompt_in_front_of_a_text_is_given_whichever_language_model_writes() -> None:
    image, text = images(1, 3), ["a photo of a red square"]
    causal: Any = create_model("blip2_opt", "tiny", prompt="a photo of ")
    _, targets = causal.text_logits(causal.encode_image(image), {"text_input": text})
    words = causal.language.tokens
    assert targets.tolist() == [[-100] * 4 + [*words.ids("a red square"), words.end_id]]
    reader: Any = create_model("blip2_t5", "tiny", prompt="a photo of ")
    _, targets = reader.text_logits(reader.encode_image(image), {"text_input": text})
    assert targets.tolist() == [[*words.ids("a red square"), words.end_id]]


def test_prompts_of_another_number_than_images_are_refused() -> None:
    model: Any = create_model("blip2_opt", "tiny").eval()
    for prompt, words in [(["a", "b", "c"], "3 texts for 2 images"), ([1, 2], "an int")]:
        with pytest.raises(ConfigError, match=words):
            model.generate({"image": images(2, 1), "prompt": prompt})


def test_the_language_model_can_be_trained_too() -> None:
    model: Any = create_model("blip2_t5", "tiny", freeze_language=False, freeze_vision=False)
    model.train()
    model({"image": images(2, 1), "text_input": ["a red square", "two"]}).loss.backward()
    assert model.language.training
    assert any(p.grad is not None for p in model.language.parameters())
    assert any(p.grad is not None for p in model.visual_encoder.parameters())


def test_frozen_parts_stay_in_evaluation_mode_and_half_precision_writes() -> None:
    model: Any = create_model("blip2_opt", "tiny").train()
    assert not model.language.training
    assert not model.visual_encoder.training
    assert model.Qformer.training
    half = model.to(torch.bfloat16).eval()
    assert len(half.generate({"image": images(2, 1)}, max_length=4)) == 2
