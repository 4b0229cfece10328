"""Released files of the second stage in their whole layouts, and files not meant for a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.errors import CheckpointError
from lavis_lite.projects.blip2.names import from_transformers, ours, to_transformers
from lavis_lite.registry import cards

# One of each layout and tower; the others differ in the width of the language model alone.
RELEASED = [
    ("blip2_opt", "pretrain_opt2.7b", "S", "opt", 2560, 107.1),
    ("blip2_opt", "caption_coco_opt6.7b", "T", "opt", 4096, 1094.8),
    ("blip2_t5", "pretrain_flant5xl_vitL", "S", "t5", 2048, 103.2),
    ("blip2_t5", "pretrain_flant5xxl", "S", "t5", 4096, 108.3),
]


def layout(letter: str, kind: str, vision_width: int, width: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a published file, without storage."""
    sizes = {"D": vision_width, "L": width, "N": 677}
    for line in Path(__file__).with_name("published_layouts.tsv").read_text().splitlines():
        key, _, rest = line.partition("\t")
        shape, _, files = rest.partition("\t")
        if line.startswith("#") or letter not in files:
            continue
        depth = 39 if "visual" in key else 12
        numbers = range(depth) if "*" in key else range(0, 12, 2) if "+" in key else range(1)
        for number in numbers:
            name = key.replace("*", str(number)).replace("+", str(number))
            dims = [sizes.get(dim) or int(dim) for dim in shape.split()]
            yield name.replace("LM_proj", f"{kind}_proj"), torch.empty(dims, device="meta")


@pytest.fixture
def small_language(tmp_path: Path) -> Callable[[str, int], str]:
    """``small_language(kind, width)``: a folder with one layer of that width, without weights."""

    def made(kind: str, width: int) -> str:
        tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "\n": 2, "a": 3}, "<unk>"))
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>"
        ).save_pretrained(tmp_path)
        config: Any = (
            transformers.OPTConfig(
                vocab_size=8, hidden_size=width, word_embed_proj_dim=width, ffn_dim=16,
                num_hidden_layers=1, num_attention_heads=4,
            )
            if kind == "opt"
            else transformers.T5Config(vocab_size=8, d_model=width, d_kv=8, d_ff=16, num_layers=1,
                                       num_heads=2, feed_forward_proj="gated-gelu")
        )  # fmt: skip
        config.save_pretrained(tmp_path)
        return f"hf/{tmp_path}"

    return made


@pytest.mark.parametrize(("name", "type", "letter", "kind", "width", "millions"), RELEASED)
def test_released_files_load_whole_with_frozen_parts_from_their_own(
    name: str, type: str, letter: str, kind: str, width: int, millions: float,
    small_language: Callable[[str, int], str],
) -> None:  # fmt: skip
    args = cards.preset(name, type)
    vision = {"pretrained": False}
    own = {k: v for k, v in args["language"].items() if k not in ("name", "pretrained")}
    language = {**own, "name": small_language(kind, width)}
    with torch.device("meta"):
        model: Any = create_model(name, type, vision=vision, language=language)
    vision_width = model.visual_encoder.width
    file = dict(layout(letter, kind, vision_width, width))
    assert len(file) == (260 if letter == "S" else 771)
    words = 512  # `position_ids`, which no model of ours has
    total = sum(tensor.numel() for tensor in file.values()) - words
    assert total / 1e6 == pytest.approx(millions, abs=0.06)
    model.kept_elsewhere = {"language.": args["language"]["name"]}
    if letter == "S":
        model.kept_elsewhere["visual_encoder."] = args["vision"]["pretrained"]
        trained = [p for k, p in model.named_parameters() if p.requires_grad]
        assert sum(p.numel() for p in trained) == total
    report = load_state(model, file)
    assert report.elsewhere == model.kept_elsewhere
    assert report.loaded == len(file) - 1
    assert args["language"]["name"] in str(report)
    model.kept_elsewhere = {}
    with pytest.raises(CheckpointError, match="missing"):
        load_state(model, file)


def tiny(kind: str = "opt", **args: object) -> Any:
    return create_model(f"blip2_{kind}", "tiny", **args)


def second_stage_file(model: Any, projection: str = "opt_proj.") -> dict[str, Tensor]:
    """The trained part of a model as LAVIS writes it."""
    rename = {"Qformer.query_tokens": "query_tokens"}
    return {
        rename.get(key, key.replace("language_proj.", projection)): tensor
        for key, tensor in model.state_dict().items()
        if not key.startswith(("language.", "visual_encoder."))
    }


def test_a_file_for_another_kind_or_width_of_language_model_is_refused_with_the_figures() -> None:
    causal, reader = tiny(), tiny("t5")
    with pytest.raises(CheckpointError, match=r"a T5 .*OPTForCausalLM"):
        load_state(causal, second_stage_file(reader, "t5_proj."))
    with pytest.raises(CheckpointError, match=r"an OPT .*T5For"):
        load_state(reader, second_stage_file(causal))
    file = second_stage_file(causal)
    file["opt_proj.weight"] = torch.zeros(2560, 64)
    with pytest.raises(CheckpointError, match=r"2560 wide.*40 \(model.language\)"):
        load_state(causal, file)


def test_a_file_of_the_first_stage_starts_the_second_and_a_warning_says_what_is_new(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first: Any = create_model("blip2", "tiny")
    second = tiny()
    before = second.language_proj.weight.clone()
    second.kept_elsewhere = {"language.": "hf/facebook/opt-2.7b"}
    report = load_state(second, first.state_dict())
    assert report.complete
    assert "first stage" in caplog.text
    assert torch.equal(second.language_proj.weight, before)
    assert torch.equal(second.Qformer.query_tokens, first.Qformer.query_tokens)
    key = "encoder.layer.0.output_query.dense.weight"
    assert torch.equal(second.Qformer.bert.state_dict()[key], first.Qformer.bert.state_dict()[key])


def test_instructions_need_a_file_whose_q_former_reads_texts() -> None:
    instructed: Any = create_model("blip2_vicuna_instruct", "tiny")
    with pytest.raises(CheckpointError, match="InstructBLIP"):
        load_state(instructed, second_stage_file(tiny(), "llm_proj."))


def test_keys_go_to_transformers_and_back() -> None:
    for name in ("blip2_opt", "blip2_t5_instruct"):
        model: Any = create_model(name, "tiny")
        for key in model.state_dict():
            if not key.endswith(("q_bias", "k_bias", "v_bias")):
                theirs = to_transformers(key, name.endswith("instruct"))
                assert theirs is not None, key
                assert from_transformers(theirs) == key
                assert ours(key) == key
