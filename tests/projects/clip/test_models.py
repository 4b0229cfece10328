"""What the models can do, of which parts they are made, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bench_dual import dual
from bench_models import batch
from torch import Tensor, nn

from lavis_lite import config, create_model, load_model_and_preprocess, registry
from lavis_lite.config.files import config_root
from lavis_lite.errors import ConfigError
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.blip.capfilt.config import Filter
from lavis_lite.projects.blip.capfilt.filter import Pair, TextJudge
from lavis_lite.registry import cards
from lavis_lite.registry.capabilities import lacks

TEXTS = ["a red cross", "two small green squares above a circle", "a star"]
# Parameters in millions, by open_clip (docs/model_profile.csv, openclip_results.csv); words,
# width of the text tower. One type of each shape.
PUBLISHED = {
    ("clip", "ViT-B-32"): (151.28, 49408, 512),
    ("clip", "ViT-L-14-336"): (427.94, 49408, 768),
    ("clip", "RN50"): (102.01, 49408, 512),
    ("siglip", "B-16"): (203.16, 32000, 768),
    ("siglip", "So400m-14"): (877.96, 32000, 1152),
    ("siglip", "siglip2-B-16-256"): (375.23, 256000, 768),
    ("clip", "PE-Core-B-16"): (447.66, 49408, 1024),  # without the zero bias of open_clip's
    ("clip", "PE-Core-T-16-384"): (69.55, 49408, 512),
}


@pytest.mark.parametrize(("name", "type"), PUBLISHED)
def test_an_architecture_has_as_many_parameters_as_published(name: str, type: str) -> None:
    millions, words, width = PUBLISHED[name, type]
    tokenizer = len(load_tokenizer())
    with torch.device("meta"):
        model = create_model(name, type, tokenizer=None)
    count = model.show_n_params(return_str=False) + (words - tokenizer) * width
    assert round(count / 1e6, 2) == millions
    assert model.image_size in (224, 256, 336, 384)
    assert model.max_length == (64 if name == "siglip" else 32 if "PE-Core" in type else 77)


def test_the_feature_extractor_is_a_clip_of_each_type() -> None:
    types = cards.types("clip")
    assert types == cards.types("clip_feature_extractor")
    assert types[:5] == ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "RN50"]
    for type in types:
        found = cards.preset("clip", type)
        assert found.pop("losses")
        assert found == cards.preset("clip_feature_extractor", type)


@pytest.mark.parametrize("name", ["clip", "clip_feature_extractor", "siglip"])
def test_features_are_named_and_what_was_not_given_is_none(name: str) -> None:
    model = dual(name, losses=None)
    samples = batch(3)
    both = model.extract_features(samples)
    assert both.image_embeds.shape == both.text_embeds.shape == (3, 16)
    for embeds, unit in (both[:2], both[2:]):
        torch.testing.assert_close(unit.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(unit, nn.functional.normalize(embeds, dim=1))
    image = model.extract_features({"image": samples["image"]})
    assert torch.equal(image.image_embeds, both.image_embeds)
    assert image.text_embeds is image.text_embeds_proj is None
    text = model.extract_features({"text_input": samples["text_input"][0]})
    torch.testing.assert_close(text.text_embeds[0], both.text_embeds[0])
    assert not both.image_embeds.requires_grad
    with pytest.raises(ConfigError, match="neither `image` nor `text_input`"):
        model.extract_features({})


def test_a_siglip_matches_by_the_logit_that_it_is_trained_with() -> None:
    model = dual("siglip").eval()
    samples = batch(3)
    tokens, texts = model.encode_image(samples["image"]), samples["text_input"]
    words = model.text_embeds(model.encode_text(texts))
    logits = model.image_embeds(tokens) @ words.T / model.temperature + model.logit_bias
    match = model.match(tokens, texts)
    torch.testing.assert_close(match[:, 1], logits.diag())
    torch.testing.assert_close(match.softmax(1)[:, 1], logits.diag().sigmoid())
    torch.testing.assert_close(model.rank(tokens, texts), logits)
    torch.testing.assert_close(model.rank(tokens, [texts[:2]] * 3), logits[:, :2])
    own = model.tokenize([texts[0], texts[1], texts[1], texts[2], texts[0], texts[0]])
    expected = torch.stack([logits[0, [0, 1]], logits[1, [1, 2]], logits[2, [0, 0]]])
    torch.testing.assert_close(model.rank(tokens, own), expected)
    with pytest.raises(ConfigError, match="rank: 5 texts for 3 images"):
        model.rank(tokens, model.tokenize([*texts, *texts[:2]]))
    with pytest.raises(ConfigError, match="match: 2 texts for 3 images"):
        model.match(tokens, texts[:2])


def test_padding_is_read_by_siglip_as_it_was_trained() -> None:
    model = dual("siglip", text={"reads_padding": True, "max_length": 20}).eval()
    ids, mask = model.tokenize(TEXTS)
    assert ids.shape == (3, 20)
    assert mask.all()
    assert (ids[0, 5:] == model.tokenizer.pad_id).all()
    alone = torch.cat([model.text_embeds(model.encode_text([text])) for text in TEXTS])
    torch.testing.assert_close(alone, model.text_embeds(model.encode_text(TEXTS)))


def test_a_tower_that_is_not_causal_hides_padding_unless_it_reads_it() -> None:
    words = {"causal": False, "reads_padding": False, "pooling": "mean"}
    model = dual("clip", text=words).eval()
    alone = torch.cat([model.text_embeds(model.encode_text([text])) for text in TEXTS])
    torch.testing.assert_close(alone, model.text_embeds(model.encode_text(TEXTS)))


def test_a_causal_tower_does_not_see_what_comes_after() -> None:
    model = dual("clip").eval()
    ids = model.tokenize(["a red cross and a star"]).ids
    changed = ids.clone()
    changed[:, 4:] = 7
    one, other = model.text_encoder(ids), model.text_encoder(changed)
    torch.testing.assert_close(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4], other[:, 4])


# ---- parts from elsewhere


def test_a_med_reads_the_texts_of_a_clip() -> None:
    text = {"name": "med", "width": 16, "depth": 1, "num_heads": 2, "mlp_width": 16}
    model = dual("clip", text={**text, "cross_attention": False}, max_length=12)
    output = model(batch(4))
    output.loss.backward()
    assert model.text_encoder.embeddings.word_embeddings.weight.grad.abs().sum() > 0
    states = model.encode_text(TEXTS)
    assert torch.equal(states[:, 0], states[:, 1])  # [CLS] speaks for the text


def test_a_model_of_transformers_reads_the_texts_with_its_own_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = load_tokenizer().vocab
    tokenizer = transformers.BertTokenizer(vocab=words)
    tokenizer.save_pretrained(tmp_path)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = transformers.BertConfig(vocab_size=len(words), intermediate_size=16, **size)
    transformers.BertModel(settings).save_pretrained(tmp_path)
    model = dual("clip", text={"name": f"hf/{tmp_path}"}, max_length=12)
    model(batch(4)).loss.backward()
    assert len(model.tokenizer) == len(words)


@pytest.mark.parametrize("name", ["timm/test_convnext", "timm/test_vit4"])
def test_any_timm_tower_sees_the_images_of_a_clip(name: str) -> None:
    model = create_model("clip", "tiny", vision={"name": name})
    samples = {"image": torch.randn(2, 3, 64, 64), "text_input": TEXTS[:2]}
    model(samples).loss.backward()
    first = next(p for p in model.visual_encoder.parameters() if p.ndim == 4)
    assert first.grad.abs().sum() > 0


# ---- what is refused


def test_towers_without_a_width_are_refused() -> None:
    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    def blind() -> nn.Module:  # says nothing of what it gives, so none can tell before it does
        made = Blind()
        made.embed_dim = 4
        return made

    kinds = {"vision_encoder": ("vision", "its tokens"), "text_backbone": ("text", "its states")}
    for kind, (key, what) in kinds.items():
        registry.register(kind, "widthless")(blind)
        try:
            match = (
                rf"model\.{key}: 'widthless' \({__file__}:\d+\) gives a Blind that has no integer "
                rf"`width` \(D of {what}\): set `encoder.width = encoder.embed_dim` where"
            )
            with pytest.raises(ConfigError, match=match):
                built_with("widthless", key)
        finally:
            del registry.everything.kinds[kind]._obj_map["widthless"]


def built_with(name: str, key: str) -> Any:
    dual("clip")  # registers the encoder
    parts: dict[str, Any] = {"vision": {"name": "bench_patches"}, key: {"name": name}}
    return create_model("clip", "tiny", image_size=8, **parts)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"max_length": 100}, r"model.max_length: 100; text backbone 'clip_text' holds 77 tokens"),
        ({"vision_projection": "none", "embed_width": 12}, r"vision_projection: none, but the to"),
        ({"text": {"width": 15}}, r"clip_text: width 15 does not divide into 2 heads"),
        ({"text": {"pooling": "first"}}, r"the first token of a causal tower has seen nothing"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_a_way_out(
    overrides: dict[str, Any], complaint: str
) -> None:
    text = {"width": 16, "depth": 1, "num_heads": 2, "mlp_width": 16, **overrides.pop("text", {})}
    with pytest.raises(ConfigError, match=complaint):
        dual("clip", text=text, **overrides)


def test_a_loss_without_its_bias_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "runner: {name: train}\n"
        "model: {name: clip, type: tiny, losses: {sigmoid: {name: sigmoid}}}\n"
        "data: {train: [{name: scenes}]}\n"
        "run: {output_dir: output/refused}\n"
    )
    match = r"losses\.sigmoid: loss 'sigmoid' requires logit_bias, which model 'clip' \(Clip\) lac"
    with pytest.raises(ConfigError, match=match):
        config.load_and_bind(path)


# ---- with the rest of the library


def test_it_comes_with_its_processors() -> None:
    model, images, texts = load_model_and_preprocess("clip", "tiny", is_eval=True)
    assert type(images["eval"]).__name__ == "ClipImageEval"
    assert images["eval"].size == (64, 64)
    assert model.image_size == 64
    assert texts["eval"]("Tom &amp;  Jerry.\n") == "Tom & Jerry."
    _, images, _ = load_model_and_preprocess("siglip", "tiny", is_eval=True)
    assert type(images["eval"]).__name__ == "BlipImageEval"


def test_capfilt_scores_texts_by_cosine_or_by_the_probability_of_a_match() -> None:
    samples = batch(2)
    pairs = [Pair(row, text) for row in (0, 1) for text in TEXTS]
    for name, score in (("clip", "itc"), ("siglip", "itm")):
        model = dual(name).eval()
        settings = Filter(name=name, score=score)  # type: ignore[arg-type]
        with torch.no_grad():
            found = TextJudge(model, settings, batch_size=4).score(samples["image"], pairs)
            tokens = model.encode_image(samples["image"])
            words = model.text_embeds(model.encode_text(TEXTS))
            expected = model.image_embeds(tokens) @ words.T
            if score == "itm":
                expected = model.rank(tokens, TEXTS).sigmoid()
        assert found == pytest.approx(expected.flatten().tolist(), abs=1e-5)
        assert not lacks(type(model), settings.requires)


def run(cfg: str, folder: Path, *overrides: str) -> dict[str, float]:
    """The figures of a run of a shipped config, with the tiny model."""
    given = ["model.type=tiny", "data.num_workers=0", f"run.output_dir={folder}", *overrides]
    loaded = config.load_and_bind(config_root() / "clip" / cfg, given)
    return registry.get("runner", loaded.runner.name)(loaded).run()["metrics"]


def test_it_trains_by_chunks_on_scenes_and_is_evaluated_with_classes_of_its_own(
    tmp_path: Path,
) -> None:
    few = "evaluate[0].data.limit=10"
    steps = ("run.max_steps=2", "data.batch_size=8", "model.gradient_cache=3")
    for cfg, folder in (("pretrain_scenes.yaml", "clip"), ("siglip_scenes.yaml", "siglip")):
        figures = run(cfg, tmp_path / folder, few, *steps)
        assert 0 <= figures["retrieval/img_r10"] <= 100
    figures = run(
        "zero_shot_scenes.yaml",
        tmp_path / "zero_shot",
        few,
        "evaluate[1].data.limit=10",
        f"model.checkpoint={tmp_path / 'clip'}",
    )
    assert {"zero_shot_classification/top1", "retrieval/txt_r1"} <= figures.keys()
