"""BLIP's models at a tiny size: what they return, what trains, what LAVIS's users call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_models import CAPTIONS, batch, bench_model
from torch import Tensor, nn

from lavis_lite import create_model, registry
from lavis_lite.checkpoint.weights import save_weights
from lavis_lite.errors import ConfigError
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.modules.output import ModelOutput
from lavis_lite.projects.blip.caption import BlipCaption

TRAINED = ["blip_caption", "blip_retrieval", "blip_pretrain"]
EVERY = [*TRAINED, "blip_image_text_matching"]


# ---- training


@pytest.mark.parametrize("name", TRAINED)
def test_the_output_holds_each_loss_and_their_sum(name: str) -> None:
    model = bench_model(name)
    output = model(batch(4))
    extras = ["intermediate_output"] if name == "blip_caption" else ["sims", "intermediate_output"]
    assert output.keys() == ["loss", *(f"loss_{key}" for key in model.losses), *extras]
    parts = [output[f"loss_{key}"] for key in model.losses]
    assert output.loss.item() == pytest.approx(sum(p.item() for p in parts))
    assert output.loss_lm is output["loss_lm"] if name != "blip_retrieval" else output.loss_itc
    assert all(p.shape == () and p.isfinite() and p.dtype == torch.float32 for p in parts)
    with pytest.raises(AttributeError, match=r"no 'loss_mlm' in this output; it has loss, loss_"):
        _ = output.loss_mlm
    with pytest.raises(KeyError):
        output["encoder_output"]
    assert repr(output).startswith(f"ModelOutput(loss={output.loss.item():.5g}, loss_")
    assert (
        repr(ModelOutput({}, sims=torch.ones(2, 3))) == "ModelOutput(loss=None, sims=tensor(2, 3))"
    )


def test_the_output_has_what_was_computed_on_the_way_by_lavis_s_names() -> None:
    model = bench_model("blip_pretrain").eval()
    samples, queue = batch(4), 8
    with torch.no_grad():
        output = model(samples)
        tokens = model.encode_image(samples["image"])
        texts = model.encode_text(samples["text_input"])
    found = output.intermediate_output
    assert found.image_embeds.equal(tokens)
    torch.testing.assert_close(found.text_embeds, texts)
    assert found.image_embeds_m.shape == tokens.shape
    assert found.text_embeds_m.shape == texts.shape
    assert found.itm_logits.shape == (12, 2)
    assert found.itm_labels.tolist() == [1] * 4 + [0] * 8
    torch.testing.assert_close(found.itm_logits[:4], model.match(tokens, samples["text_input"]))
    assert found.decoder_logits.shape[:2] == texts.shape[:2]
    assert found.decoder_labels.shape == (4, texts.shape[1] - 1)
    assert found.encoder_output is None  # not kept
    assert "itm_logits=tensor(12, 2)" in repr(output)
    sims = output.sims
    for name in ("sim_i2t", "sim_t2i", "sim_i2t_m", "sim_t2i_m", "sim_i2t_targets"):
        assert sims[name].shape == (4, 4 + queue)
    torch.testing.assert_close(sims["sim_t2i_targets"].sum(1), torch.ones(4))
    cosine = model.image_embeds(tokens) @ model.text_embeds(texts).T
    # The columns are the momentum copy's features, and the copy equals the model here.
    torch.testing.assert_close(sims.sim_i2t[:, :4], cosine / model.temp, atol=1e-4, rtol=1e-4)


def test_a_caption_s_output_has_the_image_and_the_decoder_alone() -> None:
    output = bench_model("blip_caption")(batch(2)).intermediate_output
    assert output.keys() == ["image_embeds", "decoder_logits", "decoder_labels"]
    assert output["text_embeds"] is None


@pytest.mark.parametrize("name", TRAINED)
def test_every_trained_parameter_gets_a_gradient(name: str) -> None:
    model = bench_model(name)
    model(batch(4)).loss.backward()
    missing = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    frozen = [k for k, p in model.named_parameters() if not p.requires_grad]
    assert all("_m." in key for key in frozen)


@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_falls(name: str) -> None:
    model = bench_model(name)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    samples = batch(6, step=0)  # the same negatives every time
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(samples).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_any_list_of_losses_trains_any_capable_model() -> None:
    losses = {"itc": None, "itm": None, "clip": {"name": "info_nce"}}
    model = bench_model("blip_retrieval", losses=losses)
    assert list(model(batch(3)).losses) == ["clip"]
    assert not any("_m." in key for key in model.state_dict())  # nobody asked for momentum


def test_the_temperature_stays_within_its_bounds() -> None:
    model = bench_model("blip_retrieval")
    for start, bound in ((-1.0, 0.001), (3.0, 0.5), (0.07, 0.07)):
        with torch.no_grad():
            model.temp.fill_(start)
        model(batch(2))
        assert model.temp.item() == pytest.approx(bound)


# ---- momentum


def test_the_momentum_copy_starts_equal_and_follows_by_its_formula() -> None:
    model = bench_model("blip_pretrain", momentum=0.9)
    names = model.momentum_pairs
    before = {n: clones(getattr(model, f"{n}_m")) for n in names}
    assert before["text_encoder"][0].equal(clones(model.text_encoder)[0])
    with torch.no_grad():
        for name in names:
            for parameter in getattr(model, name).parameters():
                parameter.add_(torch.randn_like(parameter))
    model(batch(2))
    for name in names:
        online, copy = clones(getattr(model, name)), clones(getattr(model, f"{name}_m"))
        for old, mine, new in zip(before[name], online, copy, strict=True):
            torch.testing.assert_close(new, 0.9 * old + 0.1 * mine)


def clones(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


@pytest.mark.parametrize(
    ("samples", "grad", "moves"),
    [({}, True, True), ({"micro_step": 1}, True, False), ({}, False, False)],
)
def test_the_momentum_copy_moves_once_per_training_step(
    samples: dict[str, int], grad: bool, moves: bool
) -> None:
    model = bench_model("blip_retrieval")
    with torch.no_grad():
        model.text_proj.weight.add_(1)
    before = model.text_proj_m.weight.clone()
    with torch.set_grad_enabled(grad):
        model({**batch(2), **samples})
    assert (not torch.equal(model.text_proj_m.weight, before)) == moves


def test_whoever_says_the_step_moves_the_momentum_copy_itself() -> None:
    model = bench_model("blip_retrieval")
    with torch.no_grad():
        model.text_proj.weight.add_(1)
    before = model.text_proj_m.weight.clone()
    model(batch(2), StepInfo())
    assert torch.equal(model.text_proj_m.weight, before)
    model.update_momentum()
    assert not torch.equal(model.text_proj_m.weight, before)


def test_the_momentum_copy_is_not_trained() -> None:
    model = bench_model("blip_pretrain")
    copies = [p for k, p in model.named_parameters() if "_m." in k]
    assert copies
    assert not any(p.requires_grad for p in copies)
    groups = model.get_optimizer_params(0.05)
    trained = {id(p) for group in groups for p in group["params"]}
    assert not trained & {id(p) for p in copies}


# ---- capabilities


def test_shapes_and_unit_length_of_what_encodes() -> None:
    model = bench_model("blip_retrieval").eval()
    samples = batch(3)
    tokens = model.encode_image(samples["image"])
    text = model.encode_text(samples["text_input"])
    assert tokens.shape == (3, 4, 16)
    assert text.shape[::2] == (3, 32)
    for embeds in (model.image_embeds(tokens), model.text_embeds(text)):
        assert embeds.shape == (3, 32)
        assert embeds.dtype == torch.float32
        torch.testing.assert_close(embeds.norm(dim=1), torch.ones(3))
    assert model.match(tokens, samples["text_input"]).shape == (3, 2)
    assert model.rank(tokens, [CAPTIONS[:2]] * 3).shape == (3, 2)


def test_the_matcher_scores_as_lavis_s_users_call_it() -> None:
    model = bench_model("blip_image_text_matching").eval()
    samples = batch(3)
    with torch.no_grad():
        logits = model(samples, match_head="itm")
        cosine = model(samples, match_head="itc")
        tokens = model.encode_image(samples["image"])
        torch.testing.assert_close(logits, model.match(tokens, samples["text_input"]))
        one_text = model({**samples, "text_input": CAPTIONS[0]})
    assert logits.shape == one_text.shape == (3, 2)
    assert cosine.shape == (3, 3)
    assert cosine.abs().max() <= 1 + 1e-6
    with pytest.raises(ValueError, match=r"match_head: 'itx' is not .*Values: itm, itc"):
        model(samples, match_head="itx")


def test_match_logits_are_fp32_under_autocast() -> None:
    model = bench_model("blip_retrieval").eval()
    texts = [f"a picture of {n} {w}" for n in ("red", "blue", "green") for w in CAPTIONS[:4]]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        tokens = model.encode_image(batch(1)["image"])
        scores = model.rank(tokens, [texts])
        logits = model.match(tokens, texts[:1])
    assert scores.dtype == logits.dtype == torch.float32
    assert not scores.equal(scores.bfloat16().float())  # not rounded on the way either
    # Weights that are in half precision altogether work as well.
    half = model.bfloat16()
    with torch.no_grad():
        tokens = half.encode_image(batch(1)["image"].bfloat16())
        assert half.match(tokens, texts[:1]).dtype == torch.float32


@pytest.mark.parametrize("name", ["blip_caption", "blip_pretrain"])
def test_captions_come_per_image_without_the_prompt(name: str) -> None:
    model = bench_model(name).eval()
    images = {"image": batch(3)["image"]}
    for options in (
        {"num_beams": 1},
        {"num_beams": 3, "num_captions": 2},
        {"use_nucleus_sampling": True, "num_captions": 2},
        {"method": "greedy"},
    ):
        texts = model.generate(images, max_length=8, min_length=5, **options)
        assert len(texts) == 3 * int(options.get("num_captions", 1))
        assert not any(text.startswith("a picture of") for text in texts)


def test_a_model_in_training_mode_writes_and_scores_without_dropout() -> None:
    captioner = create_model("blip_caption", "tiny").train()
    captioner.visual_encoder.eval()  # a part in a mode of its own
    samples = {"image": torch.randn(3, 3, 64, 64), "text_input": CAPTIONS[:3]}
    modes = [part.training for part in captioner.modules()]
    texts = captioner.generate(samples, max_length=14)
    assert [part.training for part in captioner.modules()] == modes
    assert captioner.generate(samples, max_length=14) == texts
    assert captioner.eval().generate(samples, max_length=14) == texts
    matcher = create_model("blip_image_text_matching", "tiny").train()
    for head in ("itm", "itc"):
        scores = matcher(samples, match_head=head)
        assert matcher.training
        assert scores.equal(matcher(samples, match_head=head))


def test_captions_of_known_tokens_are_those_of_the_image() -> None:
    model = bench_model("blip_caption").eval()
    image = batch(2)["image"]
    with torch.no_grad():
        tokens = model.encode_image(image)
    options = {"max_length": 10, "min_length": 6}
    assert model.generate({"image_tokens": tokens}, **options) == model.generate(
        {"image": image}, **options
    )


def test_a_caption_does_not_depend_on_its_batch() -> None:
    model = bench_model("blip_caption").eval()
    image = batch(4)["image"]
    options: dict[str, Any] = {"max_length": 12, "min_length": 6}
    together = model.generate({"image": image}, **options)
    assert together == [model.generate({"image": x[None]}, **options)[0] for x in image]
    seeded = {**options, "method": "nucleus"}
    seeds = [5, 6, 7, 8]
    assert model.generate({"image": image}, seeds=seeds, **seeded) == [
        model.generate({"image": x[None]}, seeds=[s], **seeded)[0]
        for x, s in zip(image, seeds, strict=True)
    ]


@pytest.mark.fault(54)
def test_pairs_score_alike_whatever_their_batch_in_a_timm_model() -> None:
    torch.manual_seed(0)
    model = create_model("blip_retrieval", "tiny").eval()
    image = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        tokens = model.encode_image(image)
        together = model.match(tokens, CAPTIONS)
        alone = [
            model.match(model.encode_image(x[None]), [t])
            for x, t in zip(image, CAPTIONS, strict=True)
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


# ---- starting from BERT


@pytest.fixture
def bert(tmp_path: Path) -> Any:
    """A language model of the tiny preset's size, and the folder that it is saved in."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=len(create_model("blip_caption", "tiny").tokenizer) - 2, hidden_size=64,
        num_hidden_layers=3, num_attention_heads=4, intermediate_size=128,
    )  # fmt: skip
    model = BertForMaskedLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "bert")
    return model


@pytest.mark.parametrize("name", ["blip_caption", "blip_pretrain"])
def test_a_decoder_that_starts_from_bert_has_its_head_too(
    name: str, bert: Any, tmp_path: Path
) -> None:
    model = create_model(name, "tiny", text={"pretrained": str(tmp_path / "bert")})
    states = torch.randn(2, 5, 64)
    with torch.no_grad():
        logits = model.text_decoder.cls(states)
        torch.testing.assert_close(logits[..., :-2], bert.cls(states), atol=1e-4, rtol=1e-4)
    words = bert.bert.embeddings.word_embeddings.weight
    assert model.text_decoder.bert.embeddings.word_embeddings.weight[:-2].equal(words)


# ---- encoders of one's own


@pytest.mark.parametrize("name", TRAINED)
def test_ten_lines_of_an_encoder_are_enough(name: str, own_encoder: Callable[[type], str]) -> None:
    class PatchNet(nn.Module):
        def __init__(self, width: int = 8) -> None:
            super().__init__()
            self.width = width
            self.patches = nn.Conv2d(3, width, 16, 16)

        def forward(self, image: Tensor) -> Tensor:
            return self.patches(image).flatten(2).transpose(1, 2)

    model = create_model(name, "tiny", vision={"name": own_encoder(PatchNet), "width": 12})
    samples = {"image": torch.randn(2, 3, 64, 64), "text_input": CAPTIONS[:2]}
    model(samples).loss.backward()
    assert model.visual_encoder.patches.weight.grad.abs().sum() > 0
    if name != "blip_retrieval":
        assert len(model.generate(samples, max_length=12)) == 2


def test_an_encoder_without_a_width_is_an_error(own_encoder: Callable[[type], str]) -> None:
    name = own_encoder(nn.Identity)
    message = r"model\.vision: 'own_encoder' .* has no integer `width`"
    with pytest.raises(ConfigError, match=message):
        create_model("blip_caption", "tiny", vision={"name": name})


def test_a_text_backbone_that_cannot_look_is_an_error() -> None:
    class Blind(nn.Module):
        width = 8

    registry.register("text_backbone", "blind")(Blind)
    try:
        with pytest.raises(ConfigError, match=r"needs a text backbone with .* 'blind' has none"):
            create_model("blip_caption", "tiny", text={"name": "blind"})
    finally:
        del registry.everything.kinds["text_backbone"]._obj_map["blind"]


@pytest.fixture
def own_encoder() -> Any:
    family = registry.everything.kinds["vision_encoder"]

    def add(encoder: type) -> str:
        registry.register("vision_encoder", "own_encoder")(encoder)
        return "own_encoder"

    yield add
    family._obj_map.pop("own_encoder", None)


# ---- LAVIS's BaseModel


@pytest.mark.parametrize("name", EVERY)
def test_parameters_are_counted_and_grouped(name: str) -> None:
    model = bench_model(name)
    total = sum(p.numel() for p in model.parameters())
    assert model.show_n_params(return_str=False) == total
    assert model.show_n_params() == (
        f"{total / 1e3:.1f}K" if total < 1e6 else f"{total / 1e6:.1f}M"
    )
    decayed, plain = model.get_optimizer_params(0.05, lr_scale=0.5)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert decayed["lr_scale"] == plain["lr_scale"] == 0.5
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in plain["params"])
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(decayed["params"]) + len(plain["params"]) == len(trained)
    assert model.device == torch.device("cpu")


def test_a_checkpoint_loads_with_a_report(tmp_path: Path) -> None:
    model, other = bench_model("blip_caption"), bench_model("blip_caption")
    with torch.no_grad():
        model.visual_encoder.places.fill_(7)
    save_weights(model, tmp_path / "w.safetensors")
    assert other.load_checkpoint(str(tmp_path / "w.safetensors")).complete
    assert (other.visual_encoder.places == 7).all()


def test_a_class_gives_its_released_model() -> None:
    model = BlipCaption.from_pretrained("tiny")
    assert type(model) is BlipCaption
    assert model.card["type"] == "tiny"

    class Unregistered(BlipCaption):
        pass

    with pytest.raises(LookupError, match="Unregistered is not registered as a model"):
        Unregistered.from_pretrained()
