"""Language models behind a prefix: their logits and texts, by folder and new."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavis_lite import registry
from lavis_lite.errors import CheckpointError, ConfigError, DownloadError
from lavis_lite.modules.generation import generate
from lavis_lite.modules.language import memory
from lavis_lite.modules.language.tokens import IGNORED

Folder = Callable[[str], Path]
START = {"opt": "</s>", "llama": "</s>"}
END = {"opt": "\n"}
KINDS = ["opt", "gpt2", "llama", "t5", "bart"]
PROMPTS = ["a photo of", "the red dog runs", ""]


def load(folder: Path, kind: str, **args: object) -> Any:
    spec = {"name": f"hf/{folder}", "start": START.get(kind), "end": END.get(kind), **args}
    return registry.build("language_model", {"pretrained": True, **spec}).eval()


def prefix_for(language: Any, rows: int = 3) -> Tensor:
    return torch.randn(rows, 5, language.width, generator=torch.Generator().manual_seed(1))


def write(language: Any, prefix: Tensor, prompts: list[str], **options: Any) -> list[list[int]]:
    start = torch.full((len(prefix), 1), language.start_id)
    ids = generate(
        language.writer(prefix, prompts, 32), start, max_length=9, min_length=2,
        eos_id=language.tokens.end_id, pad_id=language.tokens.pad_id, **options,
    )  # fmt: skip
    return [row[1:] for row in ids]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_padding_beside_longer_prompts_and_texts_changes_nothing(
    kind: str, language_folder: Folder
) -> None:
    language = load(language_folder(kind), kind)
    prefix = prefix_for(language)
    texts = ["the red dog", "grass", "two people near a lake"]
    logits, targets = language.text_logits(prefix, PROMPTS, texts, 32, 32)
    for row in range(3):
        alone, own = language.text_logits(
            prefix[row : row + 1], PROMPTS[row : row + 1], texts[row : row + 1], 32, 32
        )
        learnt, own_learnt = targets[row] != IGNORED, own[0] != IGNORED
        assert torch.equal(targets[row][learnt], own[0][own_learnt])
        torch.testing.assert_close(logits[row][learnt], alone[0][own_learnt], rtol=0, atol=1e-4)
    for options in ({"num_beams": 1}, {"num_beams": 3}, {"method": "nucleus", "seeds": [1, 2, 3]}):
        together = write(language, prefix, PROMPTS, **options)
        for row in range(3):
            if "seeds" in options:
                options = {**options, "seeds": [row + 1]}
            alone_ids = write(language, prefix[row : row + 1], PROMPTS[row : row + 1], **options)
            assert together[row] == alone_ids[0]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_greedy_texts_are_those_of_transformers_own_search(
    kind: str, language_folder: Folder
) -> None:
    language = load(language_folder(kind), kind)
    prefix, prompt = prefix_for(language, 1), "a photo of"
    ids = torch.tensor([language.tokens.ids(prompt)])
    edge = torch.tensor([[language.tokens.end_id]])
    start = torch.tensor([language.tokens.start_ids if not language.reads_apart else []]).long()
    behind = [start, ids, edge] if language.reads_apart else [start, ids]
    words = language.model.get_input_embeddings()(torch.cat(behind, dim=1))
    embeds = torch.cat([prefix, words], dim=1)
    found = language.model.generate(
        inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
        max_new_tokens=8, min_new_tokens=1, do_sample=False, num_beams=1, forced_eos_token_id=None,
        eos_token_id=language.tokens.end_id, pad_token_id=1,
    )  # fmt: skip
    wanted = found[0, 1:].tolist() if language.reads_apart else found[0].tolist()
    ours = write(language, prefix, [prompt], num_beams=1)[0]
    assert ours == [t for t in wanted if t != language.tokens.end_id][: len(ours)]
    assert len(ours) in (
        8,
        wanted.index(language.tokens.end_id) if 2 in wanted or 4 in wanted else 8,
    )


@torch.no_grad()
def test_what_is_learnt_is_the_text_behind_its_prompt_and_its_end(language_folder: Folder) -> None:
    language = load(language_folder("opt"), "opt")
    word = language.tokens.ids
    prefix = prefix_for(language, 1)
    _, given = language.text_logits(prefix, ["a photo of"], ["grass"], 32, 32)
    assert given.tolist() == [[IGNORED] * 4 + [*word("grass"), language.tokens.end_id]]
    _, whole = language.text_logits(prefix, None, ["grass"], 32, 32)
    assert whole.tolist() == [[2, *word("grass"), language.tokens.end_id]]
    _, cut = language.text_logits(prefix, None, ["the red dog runs on grass"], 4, 32)
    assert cut.tolist() == [[2, *word("the red dog")]]
    _, cut = language.text_logits(prefix, ["a photo of the red"], ["dog"], 4, 3)
    assert cut.shape == (1, 5)  # the start and the last two tokens of the prompt, then the text


@torch.no_grad()
def test_without_a_prefix_the_first_token_is_not_learnt(language_folder: Folder) -> None:
    language = load(language_folder("gpt2"), "gpt2")
    logits, targets = language.text_logits(torch.zeros(1, 0, 32), None, ["the red dog"], 32, 32)
    assert targets.tolist() == [[*language.tokens.ids("red dog"), 2]]
    ids = torch.tensor([[*language.tokens.ids("the red dog"), 2]])
    torch.testing.assert_close(logits, language.model(input_ids=ids).logits[:, :-1])


def test_a_flan_t5_has_its_own_head_loaded_or_not(language_folder: Folder, tmp_path: Path) -> None:
    source = tmp_path / "t5"
    shutil.copytree(language_folder("t5"), source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    for pretrained in (True, False):
        model = load(source, "t5", pretrained=pretrained).model
        assert model.lm_head.weight is not model.shared.weight
    weights = load_file(source / "model.safetensors")
    assert torch.equal(load(source, "t5").model.lm_head.weight, weights.pop("lm_head.weight"))
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="lm_head"):
        load(source, "t5")


def test_values_of_a_config_can_differ_and_must_exist(language_folder: Folder) -> None:
    exact = load(language_folder("t5"), "t5", config={"dense_act_fn": "gelu"})
    act = exact.model.encoder.block[0].layer[-1].DenseReluDense.act
    x = torch.linspace(-3, 3, 50)
    torch.testing.assert_close(act(x), torch.nn.functional.gelu(x), rtol=0, atol=0)
    with pytest.raises(ConfigError, match="dense_act"):
        load(language_folder("t5"), "t5", config={"dense_act": "gelu"})


def test_weights_come_in_the_asked_format(language_folder: Folder) -> None:
    language = load(language_folder("opt"), "opt", dtype="bf16")
    assert {p.dtype for p in language.parameters()} == {torch.bfloat16}
    logits, _ = language.text_logits(prefix_for(language, 1), None, ["grass"], 32, 32)
    assert logits.dtype is torch.bfloat16


def test_a_folder_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="/no/such/model"):
        registry.build("language_model", {"name": "hf//no/such/model", "pretrained": True})
    monkeypatch.setenv("LAVIS_LITE_OFFLINE", "1")
    with pytest.raises(DownloadError, match="hub's cache"):
        registry.build("language_model", {"name": "hf/facebook/opt-2.7b", "pretrained": True})


def test_a_model_that_writes_nothing_is_refused(tmp_path: Path) -> None:
    transformers.CLIPVisionConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no language model"):
        registry.build("language_model", {"name": f"hf/{tmp_path}"})


def test_an_end_of_text_that_is_several_tokens_is_refused(language_folder: Folder) -> None:
    with pytest.raises(ConfigError, match="end"):
        load(language_folder("gpt2"), "gpt2", end="the end")


def test_too_little_memory_is_said_with_the_figures_before_loading(
    language_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 20_000)
    monkeypatch.setattr(
        transformers.OPTForCausalLM, "from_pretrained", lambda *args, **kw: pytest.fail("loaded")
    )
    with pytest.raises(ConfigError, match=r"0\.0 GB are free.*dtype: fp16"):
        load(language_folder("opt"), "opt")


def test_the_memory_of_this_machine_is_known_where_the_system_tells() -> None:
    free = memory.available_memory()
    assert free is None or free > 1 << 20
    memory.check_memory("x", 10, 4, "")


def test_new_models_take_an_architecture_its_sizes_and_the_weights_of_a_run(
    tmp_path: Path,
) -> None:
    config = {"n_embd": 32, "n_layer": 1, "n_head": 2}
    spec = {"name": "new/gpt2", "config": config}
    first = registry.build("language_model", spec)
    save_file(
        {f"language.{key}": value.clone() for key, value in first.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    second = registry.build("language_model", {**spec, "pretrained": str(tmp_path)})
    prefix = prefix_for(first)
    assert write(first.eval(), prefix, PROMPTS) == write(second.eval(), prefix, PROMPTS)
    for wrong, words in [
        ({"name": "new/gtp2"}, "gpt2"),
        ({**spec, "config": {"n_embed": 32}}, "n_embd"),
        ({**spec, "config": {**config, "n_layer": "two"}}, "n_layer"),
        ({"name": "new/clip_vision_model"}, "no language model"),
    ]:
        with pytest.raises(ConfigError, match=words):
            registry.build("language_model", wrong)
