"""Models of the first stage: what they are trained by, and what they can be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lavis_lite import cli, create_model, load_model, registry
from lavis_lite.data.image_processors import BlipImageTrain
from lavis_lite.errors import ConfigError
from lavis_lite.losses.shared import Shared
from lavis_lite.modules.layers.similarity import cosines, paired_cosines
from lavis_lite.projects.blip.capfilt.captioner import CaptionWriter
from lavis_lite.projects.blip.capfilt.config import Filter
from lavis_lite.projects.blip.capfilt.filter import Pair, TextJudge
from lavis_lite.projects.blip2.model import Blip2Qformer

TEXTS = ["a red square above a cross", "two circles", "a cross", "a blue star"]
NAMES = ["blip2", "blip2_feature_extractor", "blip2_image_text_matching"]


def build(name: str = "blip2", **changes: Any) -> Any:
    torch.manual_seed(0)
    model = create_model(name, "tiny", **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def samples(count: int = 4, **more: Any) -> dict[str, Any]:
    return {"image": torch.randn(count, 3, 56, 56), "text_input": TEXTS[:count], **more}


# ---- training


def test_one_class_has_two_names() -> None:
    assert type(build("blip2")) is type(build("blip2_feature_extractor")) is Blip2Qformer


def test_everything_but_the_encoder_trains_and_the_encoder_stays_in_evaluation_mode() -> None:
    model = build().train()
    model(samples()).loss.backward()
    untrained = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert untrained == {f"visual_encoder.{n}" for n, _ in model.visual_encoder.named_parameters()}
    assert not model.visual_encoder.training
    assert model.Qformer.training
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None] == []
    whole = build(freeze_vision=False).train()
    whole(samples()).loss.backward()
    assert whole.visual_encoder.blocks[0].attn.qkv.weight.grad is not None


def test_a_batch_of_one_without_a_process_group_trains() -> None:
    output = build().train()(samples(1))
    output.loss.backward()
    assert output.loss.isfinite()
    assert output.loss_itc == 0


def test_the_image_is_read_once_for_contrast_and_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = build(), []
    once = model.Qformer.read_image
    monkeypatch.setattr(model.Qformer, "read_image", lambda tokens: read.append(1) or once(tokens))
    model(samples())
    assert len(read) == 1


def test_pairs_of_one_image_are_each_other_s_positives_by_ids_of_any_kind() -> None:
    losses = {"itc": {"same_image_positive": True}, "itm": None, "lm": None}
    model, batch = build(losses=losses), samples()
    with torch.no_grad():
        apart = model(batch).loss_itc
        numbers = model({**batch, "image_id": torch.tensor([7, 7, 8, 9])}).loss_itc
        strings = model({**batch, "image_id": ["a", "a", "b", "c"]}).loss_itc
        view = Shared(model, batch)
        sims = cosines(view.image_features, view.text_features) / model.temp
        targets = torch.eye(4)
        targets[:2, :2] = 0.5
        smooth = 0.9 * targets + 0.1 / 4
        expected = -(smooth * (sims.log_softmax(1) + sims.T.log_softmax(1))).sum() / 8
    torch.testing.assert_close(numbers, expected)
    torch.testing.assert_close(strings, numbers)
    assert apart != numbers


def test_negatives_show_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = build(), []
    match = model.match_pairs

    def note(context: Any, text: Any) -> Tensor:
        seen.append(text.ids)
        return match(context, text)

    monkeypatch.setattr(model, "match_pairs", note)
    batch = samples(image_id=["a", "a", "a", "b"])
    output = model(batch)
    own = model.tokenize(TEXTS).ids
    both = seen[0].unflatten(0, (-1, 2))
    assert torch.equal(both[:, 0], own)
    for row in range(3):  # the only text of another image is the last
        assert torch.equal(both[row, 1], own[3])
    assert output.intermediate_output.itm_labels.tolist() == [1] * 4 + [0] * 8


def test_the_encoder_of_a_model_of_the_zoo_is_a_start_by_its_name_and_type() -> None:
    start = load_model("blip_pretrain", "scenes").visual_encoder.state_dict()
    model: Any = create_model("blip2", "scenes", vision={"pretrained": "blip_pretrain.scenes"})
    own = model.visual_encoder.state_dict()
    assert own.keys() == start.keys()
    assert all(torch.equal(own[key], tensor) for key, tensor in start.items())
    assert model.kept_elsewhere == {"visual_encoder.": "blip_pretrain.scenes"}


# ---- several vectors per image


def test_the_closest_of_several_vectors_counts() -> None:
    image = nn.functional.normalize(torch.randn(3, 5, 8), dim=-1)
    text = nn.functional.normalize(torch.randn(4, 8), dim=-1)
    each = torch.einsum("iqe,te->itq", image, text)
    torch.testing.assert_close(cosines(image, text), each.amax(2))
    torch.testing.assert_close(cosines(text, image), each.amax(2).T)
    torch.testing.assert_close(paired_cosines(image, text[:3]), each.amax(2).diagonal())
    one = image[:, :1]
    torch.testing.assert_close(cosines(one, text), cosines(one[:, 0], text))
    assert torch.equal(paired_cosines(one[:, 0], text[:3]), (one[:, 0] * text[:3]).sum(-1))
    assert cosines(image, text[:0]).shape == (3, 0)


# ---- what it can be asked


def test_ragged_texts_are_matched_as_each_alone() -> None:
    model, batch = build("blip2_image_text_matching"), samples()
    with torch.no_grad():
        for head, atol in (("itm", 1e-5), ("itc", 1e-6)):
            together = model(batch, match_head=head)
            assert together.shape == (4, 2 if head == "itm" else 1)
            for row, text in enumerate(TEXTS):
                one = {"image": batch["image"][row : row + 1], "text_input": [text]}
                alone = model(one, match_head=head)
                torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=atol)
    with pytest.raises(ValueError, match=r"match_head: .*cosine"):
        model(batch, match_head="cosine")
    with pytest.raises(ConfigError, match="3 texts for 4 images"):
        model({**batch, "text_input": TEXTS[:3]})


def test_ranking_is_matching_whatever_goes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    with torch.no_grad():
        tokens = model.encode_image(samples(2)["image"])
        one_by_one = [model.match(tokens, [text] * 2)[:, 1] for text in TEXTS]
        expected = torch.stack(one_by_one, dim=1)
        torch.testing.assert_close(model.rank(tokens, TEXTS), expected, rtol=0, atol=1e-5)
        monkeypatch.setattr("lavis_lite.projects.blip2.model.TOKENS_AT_ONCE", 1)
        torch.testing.assert_close(model.rank(tokens, [TEXTS, TEXTS]), expected, rtol=0, atol=1e-5)
        assert model.rank(tokens, model.tokenize([])).shape == (2, 0)
        with pytest.raises(ConfigError, match="same number for"):
            model.rank(tokens, [TEXTS[:1], TEXTS[:2]])


def test_written_texts_depend_on_their_image_and_seed_alone() -> None:
    model, image = build(), samples()["image"]
    for options in ({"num_beams": 3}, {"use_nucleus_sampling": True, "seeds": [1, 2, 3, 4]}):
        together = model.generate({"image": image}, max_length=12, min_length=4, **options)
        seeds = {"seeds": [2]} if "seeds" in options else {}
        alone = model.generate(
            {"image": image[1:2]}, max_length=12, min_length=4, **{**options, **seeds}
        )
        assert alone == together[1:2]
        assert len(together) == 4
    several = model.generate({"image": image}, num_beams=3, num_captions=2, max_length=12)
    assert len(several) == 8
    with pytest.raises(ConfigError, match=r"max_length: 900; the text tower has 512"):
        model.generate({"image": image}, max_length=900)


def test_features_do_not_cut_texts_and_refuse_what_is_missing() -> None:
    model = build("blip2_feature_extractor")
    long = "a cross " * 40
    text = model.extract_features({"text_input": long}, mode="text")
    assert text.text_embeds.shape == (1, 82, 64)
    assert model.tokenize([long]).ids.shape == (1, 32)
    both = model.extract_features({**samples(1), "text_input": long})
    assert both.multimodal_embeds.shape == (1, 8, 64)
    assert text.image_embeds is None
    with pytest.raises(ConfigError, match="'multimodal' reads image, which samples lack"):
        model.extract_features({"text_input": "a"})
    with pytest.raises(ConfigError, match="Did you mean 'image'"):
        model.extract_features(samples(), mode="imag")


def test_a_text_backbone_without_queries_is_refused() -> None:
    with pytest.raises(ConfigError, match="text backbone with queries, 'qformer'; 'med' has none"):
        build(text={"name": "med", "width": 64, "num_heads": 4, "depth": 2, "mlp_width": 128})


def test_the_processor_of_lavis_crops_and_mirrors_and_does_no_more() -> None:
    made = registry.build("processor", {"name": "blip2_image_train"}, image_size=32)
    assert isinstance(made, BlipImageTrain)
    assert (made.num_ops, made.scale, made.hflip) == (0, (0.5, 1.0), True)


# ---- the commands


@pytest.fixture
def picture(tmp_path: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("command", "name", "key"),
    [
        (["caption"], "blip2", "caption"),
        (["match", "--text", "a cross"], "blip2_image_text_matching", "match"),
        (["search", "--text", "a cross"], "blip2", "score"),
    ],
)
def test_commands_work_with_these_models(
    command: list[str], name: str, key: str, picture: str, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    chosen = ["--model", name, "--type", "tiny", "--device", "cpu", "--out", str(out)]
    assert not cli.main([*command, *chosen, picture])
    assert key in json.loads(out.read_text().splitlines()[0])


def test_capfilt_s_captioner_and_filter_can_be_these_models() -> None:
    model, image = build(), samples(2)["image"]
    writer = CaptionWriter(model, {"max_length": 12}, seed=3)
    written = writer.write(image, ["first", "second"])
    assert written[1:] == writer.write(image[1:], ["second"])  # of seed and key alone
    pairs = [Pair(0, TEXTS[0]), Pair(1, TEXTS[1]), Pair(0, TEXTS[2])]
    with torch.no_grad():
        tokens = model.encode_image(image)
        for score in ("itm", "itc"):
            found = TextJudge(model, Filter(name="blip2", score=score), 2).score(image, pairs)
            for pair, value in zip(pairs, found, strict=True):
                own = tokens[pair.row : pair.row + 1]
                if score == "itm":
                    expected = model.match(own, [pair.text]).softmax(-1)[0, 1].item()
                else:
                    text = model.text_features(model.encode_text([pair.text]))
                    expected = cosines(model.image_features(own), text).item()
                assert value == pytest.approx(expected, abs=2e-6)
