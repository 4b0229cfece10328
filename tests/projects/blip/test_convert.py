"""Weights in every BLIP layout: published checkpoints, and one model's weights in another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_lite import create_model, registry
from lavis_lite.checkpoint.weights import load_state, read_weights, save_weights
from lavis_lite.errors import CheckpointError
from lavis_lite.modules.vision import interpolate_pos_embed
from lavis_lite.projects.blip.convert import PARTS
from lavis_lite.projects.blip.names import to_transformers
from lavis_lite.registry import cards

MODELS = {
    "C": ("blip_caption", "base_coco", "large_coco"),
    "I": ("blip_image_text_matching", "base", "large"),
    "R": ("blip_retrieval", "coco", "coco"),
    "P": ("blip_pretrain", "base", "large"),
    "V": ("blip_vqa", "vqav2", "vqav2"),
    "L": ("blip_nlvr", "nlvr", "nlvr"),
    "F": ("blip_feature_extractor", "base", "large"),
}


def published(letter: str, size: str) -> dict[str, list[int]]:
    """Key -> shape of a published checkpoint."""
    letters = {
        "D": 1024 if size == "large" else 768,
        "N": {"P": 197, "F": 197, "V": 901}.get(letter, 577),
    }
    layout = {}
    for line in Path(__file__).with_name("published_layouts.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        template, dims, where = line.split("\t")
        depth = 24 if ".blocks." in template and size == "large" else 12
        numbers = range(6, 12) if "+" in template else range(depth if "*" in template else 1)
        for number in numbers:
            shape = [
                int(d) if d.isdigit() else int(d[:-1] or 1) * letters[d[-1]] for d in dims.split()
            ]
            if letter in where:
                layout[re.sub(r"[*+]", str(number), template)] = shape
    return layout


@pytest.fixture(scope="module")
def bert_size_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vocabulary")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = special + [f"[unused{i}]" for i in range(30522 - len(special))]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    return str(folder)


def on_meta(letter: str, size: str, vocabulary: str) -> Any:
    name, base, large = MODELS[letter]
    args = cards.preset(name, large if size == "large" else base)
    args["vision"] = cards.preset("blip_pretrain", size)["vision"]
    with torch.device("meta"):
        return registry.build("model", {"name": name, **args, "tokenizer": vocabulary})


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("letter", MODELS)
def test_a_published_checkpoint_fits_key_by_key_and_shape_by_shape(
    letter: str, size: str, bert_size_vocabulary: str
) -> None:
    layout = published(letter, size)
    assert (
        len(layout)
        == {
            "Cbase": 474,
            "Clarge": 618,
            "Ibase": 473,
            "Ilarge": 617,
            "Rbase": 949,
            "Rlarge": 1237,
            "Pbase": 1272,
            "Plarge": 1560,
            "Vbase": 791,
            "Vlarge": 935,
            "Lbase": 579,
            "Llarge": 723,
            "Fbase": 472,
            "Flarge": 616,
        }[letter + size]
    )
    model = on_meta(letter, size, bert_size_vocabulary)
    file = {key: torch.empty(shape, device="meta") for key, shape in layout.items()}
    adapted = model.adapt_weights(file)
    own = model.state_dict()
    assert set(adapted) == set(own)
    assert [k for k in own if adapted[k].shape != own[k].shape] == []
    counters = {k for k in layout if k.endswith("position_ids")}
    taken = {id(tensor) for tensor in adapted.values()}
    assert {key for key, tensor in file.items() if id(tensor) not in taken} == counters


OF_TRANSFORMERS = {
    "C": "BlipForConditionalGeneration",
    "I": "BlipForImageTextRetrieval",
    "V": "BlipForQuestionAnswering",
}


@pytest.mark.parametrize("spelled", ["Cbase", "Clarge", "Ibase", "Ilarge", "Vbase"])
def test_a_published_checkpoint_maps_onto_transformers_one_to_one(spelled: str) -> None:
    import transformers

    letter, size = spelled[0], spelled[1:]
    width, depth = {"base": (768, 12), "large": (1024, 24)}[size]
    config = transformers.BlipConfig(
        vision_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": depth,
            "num_attention_heads": width // 64,
            "image_size": 480 if letter == "V" else 384,
        },
        text_config={"num_attention_heads": 12},
    )
    with torch.device("meta"):
        model = getattr(transformers, OF_TRANSFORMERS[letter])(config)
    theirs = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    layout = published(letter, size)
    ours = {to_transformers(k): v for k, v in layout.items() if not k.endswith("position_ids")}
    assert ours == theirs


def test_encoder_and_decoder_share_all_but_self_attention(bert_size_vocabulary: str) -> None:
    model = on_meta("P", "base", bert_size_vocabulary)
    decoder = {id(p) for p in model.text_decoder.bert.parameters()}
    names = dict(model.text_encoder.named_parameters())
    own = {name for name, p in names.items() if id(p) not in decoder}
    assert len(names) - len(own) == 196
    assert len(own) == 120
    assert {re.sub(r"\d+", "N", name).split(".")[3] for name in own} == {"attention"}
    head = model.text_decoder.cls.predictions
    assert head.decoder.weight is model.text_encoder.embeddings.word_embeddings.weight
    assert head.decoder.bias is head.bias


# ---- one model's weights in another


@pytest.fixture(scope="module")
def pretrained() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return filled(create_model("blip_pretrain", "tiny"))


def filled(model: Any) -> dict[str, Tensor]:
    """The weights of a model, every number drawn anew."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("_queue") and buffer.is_floating_point():
                buffer.normal_()
            elif name.endswith("queue_ptr"):
                buffer.fill_(3)
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ["blip_caption", "blip_retrieval", "blip_image_text_matching"])
def test_pre_trained_weights_load_into_every_fine_tuned_model(
    name: str, pretrained: dict[str, Tensor]
) -> None:
    model = create_model(name, "tiny")
    report = load_state(model, pretrained)
    assert report.complete
    shared = [key for key in model.state_dict() if key in pretrained and "queue" not in key]
    assert len(shared) > 50
    assert all(torch.equal(model.state_dict()[key], pretrained[key]) for key in shared)


def test_retrieval_weights_load_into_the_matcher_but_not_into_more_than_they_hold() -> None:
    weights = filled(create_model("blip_retrieval", "tiny"))
    matcher = create_model("blip_image_text_matching", "tiny")
    assert load_state(matcher, weights).complete
    assert torch.equal(matcher.itm_head.weight, weights["itm_head.weight"])
    with pytest.raises(CheckpointError, match=r"missing: text_decoder\.bert\.encoder\.layer\.0"):
        load_state(create_model("blip_pretrain", "tiny"), weights)
    with pytest.raises(CheckpointError, match=r"(?s)1 are missing.*missing: temp"):
        load_state(create_model("blip_retrieval", "tiny"), dict(matcher.state_dict()))


def test_the_weights_of_a_run_come_back_as_they_were(
    pretrained: dict[str, Tensor], tmp_path: Path
) -> None:
    model = create_model("blip_pretrain", "tiny")
    load_state(model, pretrained)
    save_weights(model, tmp_path / "model.safetensors")
    again = create_model("blip_pretrain", "tiny")
    load_state(again, read_weights(tmp_path / "model.safetensors"))
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_loading_keeps_the_tie(pretrained: dict[str, Tensor]) -> None:
    model = create_model("blip_pretrain", "tiny")
    model.load_state_dict(pretrained)
    encoder, decoder = model.text_encoder, model.text_decoder
    with torch.no_grad():
        encoder.embeddings.word_embeddings.weight.fill_(2)
        encoder.encoder.layer[1].crossattention.self.key.weight.fill_(3)
        encoder.encoder.layer[1].attention.self.key.weight.fill_(4)
    assert (decoder.cls.predictions.decoder.weight == 2).all()
    assert (decoder.bert.encoder.layer[1].crossattention.self.key.weight == 3).all()
    assert not (decoder.bert.encoder.layer[1].attention.self.key.weight == 4).any()


def test_a_momentum_copy_that_is_missing_starts_as_the_online_towers(
    pretrained: dict[str, Tensor],
) -> None:
    weights = {k: v for k, v in pretrained.items() if "_m." not in k}
    model = create_model("blip_retrieval", "tiny")
    load_state(model, weights)
    for name in model.momentum_pairs:
        online, copy = getattr(model, name), getattr(model, f"{name}_m")
        for key, value in online.state_dict().items():
            assert torch.equal(copy.state_dict()[key], value), f"{name}.{key}"
            assert copy.state_dict()[key].data_ptr() != value.data_ptr()


def test_a_momentum_copy_that_is_there_is_kept(pretrained: dict[str, Tensor]) -> None:
    model = create_model("blip_retrieval", "tiny")
    load_state(model, pretrained)
    key = "text_proj_m.weight"
    assert torch.equal(model.state_dict()[key], pretrained[key])
    assert not torch.equal(model.text_proj.weight, model.text_proj_m.weight)


def test_a_queue_of_the_same_length_goes_on(pretrained: dict[str, Tensor]) -> None:
    model = create_model("blip_pretrain", "tiny")
    weights = {
        re.sub(r"losses\.itc\.queue\.", "", key).replace("queue_ptr", "ptr_queue"): value
        for key, value in pretrained.items()
    }
    assert "ptr_queue" in weights
    load_state(model, weights)
    queue = model.losses["itc"].queue
    assert queue.queue_ptr.item() == 3
    assert torch.equal(queue.image_queue, pretrained["losses.itc.queue.image_queue"])


def test_a_queue_of_another_length_starts_anew(pretrained: dict[str, Tensor]) -> None:
    losses = {"itc": {"queue_size": 5}}
    model = create_model("blip_pretrain", "tiny", losses=losses)
    before = model.losses["itc"].queue.image_queue.clone()
    load_state(model, pretrained)
    queue = model.losses["itc"].queue
    assert torch.equal(queue.image_queue, before)
    assert queue.queue_ptr.item() == 0


def test_a_queue_without_the_ids_that_retrieval_needs_starts_anew(
    pretrained: dict[str, Tensor],
) -> None:
    model = create_model("blip_retrieval", "tiny")  # its queue also knows which image a pair shows
    load_state(model, pretrained)
    queue = model.losses["itc"].queue
    assert (queue.idx_queue == -100).all()
    assert not torch.equal(queue.text_queue, pretrained["losses.itc.queue.text_queue"])
    assert queue.queue_ptr.item() == 0


def test_position_embeddings_are_resampled_to_the_image_size(
    pretrained: dict[str, Tensor],
) -> None:
    model = create_model("blip_pretrain", "tiny", image_size=96)
    report = load_state(model, pretrained)
    keys = ["visual_encoder.pos_embed", "visual_encoder_m.pos_embed"]
    assert sorted(report.interpolated) == keys
    for key in keys:
        expected = interpolate_pos_embed(pretrained[key], 1 + 6 * 6)
        assert torch.equal(model.state_dict()[key], expected)


def test_what_belongs_to_no_blip_model_is_refused(pretrained: dict[str, Tensor]) -> None:
    weights = {**pretrained, "vision_model.layer.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"unexpected: vision_model\.layer\.weight"):
        load_state(create_model("blip_caption", "tiny"), weights)


def test_a_key_of_a_part_that_the_model_has_is_not_dropped(pretrained: dict[str, Tensor]) -> None:
    assert "visual_encoder." in PARTS
    weights = {**pretrained, "visual_encoder.extra": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"unexpected: visual_encoder\.extra"):
        load_state(create_model("blip_caption", "tiny"), weights)


def test_older_files_carry_position_ids_that_are_ignored(pretrained: dict[str, Tensor]) -> None:
    weights = {**pretrained, "text_encoder.embeddings.position_ids": torch.arange(512)[None]}
    assert load_state(create_model("blip_pretrain", "tiny"), weights).complete


def test_wrong_shapes_are_named_and_nothing_is_loaded(pretrained: dict[str, Tensor]) -> None:
    model = create_model("blip_retrieval", "tiny", embed_width=16)
    before = model.visual_encoder.cls_token.clone()
    with pytest.raises(CheckpointError) as error:
        load_state(model, pretrained)
    assert "misshapen: vision_proj.weight (32, 64) here, (16, 64) in the model" in str(error.value)
    assert torch.equal(model.visual_encoder.cls_token, before)
