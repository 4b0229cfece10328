"""Scores of texts and images: which are stored, what they share, what is wrong with some."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image

from lavis_lite import config as configs
from lavis_lite import registry, runners
from lavis_lite.errors import ConfigError
from lavis_lite.projects.blip.capfilt.scorers.contrast import Features, NegClipLoss, contrasted
from lavis_lite.projects.blip.capfilt.scorers.text_statistics import facts
from lavis_lite.projects.blip.capfilt.texts import RunRecords, read_records, texts

BLIP = "model: {name: toy_filter}"
SCORERS = (
    f"scorers=[{{name: itm, {BLIP}}}, {{name: itc, {BLIP}}}, "
    f"{{name: neg_clip_loss, {BLIP}, temperature: 0.1}}, {{name: caption_similarity, {BLIP}}}, "
    "{name: text_statistics, called: text}, {name: sha256}, {name: image_size}]"
)


DECIDING = ("filter.score=itc", "filter.threshold=0.5", "scorers[1].called=cosine")


@pytest.fixture
def encoded(load, monkeypatch):
    """The sizes of the batches that the filter's image encoder is called with."""
    load()  # registers the toys
    toy = registry.get("model", "toy_filter")
    calls, encode = [], toy.encode_image
    watched = lambda self, image: calls.append(len(image)) or encode(self, image)  # noqa: E731
    monkeypatch.setattr(toy, "encode_image", watched)
    return calls


@pytest.fixture
def scored(encoded, capfilt):
    """The folder of a run with every scorer, and the calls of the image encoder."""
    return capfilt("scored", SCORERS, *DECIDING), encoded


def test_every_score_is_stored_under_its_name(scored):
    names = {"itc", "itm", "cosine", "neg_clip_loss", "caption_similarity"}
    facts_of_text = {f"text_{fact}" for fact in facts("")}
    for record in read_records(scored[0]):
        assert record["version"] == 2
        assert record["sources"] == ["captioner"]
        assert set(record["text_scores"]) == names | facts_of_text
        assert set(record["image_scores"]) == {"sha256", "image_size_width", "image_size_height"}
    run = RunRecords(scored[0])
    assert set(run.text_scores) == names | facts_of_text
    assert set(run.image_scores) == set(record["image_scores"])


def test_scorers_and_the_filter_with_equal_models_encode_each_image_once(scored):
    assert sum(scored[1]) == 24


def test_equal_scores_of_filter_and_scorer_are_equal(scored):
    for record in read_records(scored[0]):
        for text in texts(record):
            assert text.scores["itc"] == text.scores["cosine"]
            assert text.scores["itc"] is not None
            assert 0 < text.scores["itm"] < 1


def test_hashes_and_sizes_are_those_of_the_file(scored):
    first = next(read_records(scored[0]))
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (0, 80, 160)).save(buffer, "PNG")
    scores = first["image_scores"]
    assert scores["sha256"] == hashlib.sha256(buffer.getvalue()).hexdigest()
    assert (scores["image_size_width"], scores["image_size_height"]) == (4, 4)


def test_captions_are_compared_with_the_web_text_alone(scored):
    for record in read_records(scored[0]):
        web, synthetic = texts(record)
        assert -1 <= web.scores["caption_similarity"] <= 1
        assert synthetic.scores["caption_similarity"] is None


def test_the_counts_say_how_many_of_how_many_and_why_not_the_others(scored):
    stats = json.loads((scored[0] / "stats.json").read_text())["scores"]
    assert stats["itm"]["web"]["scored"] == 24 == sum(stats["itm"]["web"]["histogram"])
    similarity = stats["caption_similarity"]["synthetic"]
    assert (similarity["seen"], similarity["scored"]) == (24, 0)
    assert similarity["missing"] == {"does not apply": 24}
    assert stats["sha256"]["image"] == {"seen": 24, "scored": 24, "missing": {}}


def test_workers_write_the_same_scores(load, tmp_path, scored, digests):
    runners.run(load("many", SCORERS, *DECIDING, "runner.executor=process"))
    assert digests(tmp_path / "many") == digests(scored[0])


def test_several_captioners_sign_their_texts(capfilt, records):
    listed = (
        "captioner=[{name: toy_captioner, called: one}, "
        "{name: toy_captioner, called: two, generate: {num_captions: 2}}]"
    )
    folder = capfilt("out", listed)
    for record in records(folder):
        assert record["sources"] == ["one", "two", "two"]
        # The same model with the same seed says the same: its second text is a repetition.
        assert record["synthetic"][0] == record["synthetic"][1]
        assert texts(record)[2].reason == "repeats another text of the image"
        assert texts(record)[2].scores == {"itm": None}
    settings = json.loads((folder / "job.json").read_text())["settings"]
    assert settings["captioner.two.generate.num_captions"] == 2


def test_a_run_with_the_old_keys_knows_nothing_of_the_new_ones(capfilt, records):
    folder = capfilt()
    job = json.loads((folder / "job.json").read_text())
    assert not [key for key in job["settings"] if "scorers" in key or "called" in key]
    assert not {"text_scores", "image_scores"} & set(job)
    assert not {"scores", "uncaptioned"} & set(json.loads((folder / "stats.json").read_text()))
    assert set(records(folder)[0]) == {
        *("key", "index", "image", "image_id", "web_text", "synthetic"),
        *("scores", "kept", "reason", "fields"),
    }


@pytest.mark.parametrize(
    ("scorers", "complaint"),
    [
        ("{name: itmm}", "Did you mean 'itm'"),
        ("{name: itm}", r"scorers\[0\].model: scorer 'itm' needs a model"),
        ("{name: itm, model: {name: toy_blind}}", "needs encode_image, match, which model"),
        ("{name: sha256, model: {name: toy_filter}}", "computes without a model"),
        ("{name: sha256}, {name: sha256}", "all are stored as 'sha256'"),
        ("{name: itm, called: 'a b', model: {name: toy_filter}}", "'a b' is no name"),
        ("{name: itm, model: {name: toy_filter}}", "a score named 'itm' is there already"),
        (
            "{name: sha256, called: text_words}, {name: text_statistics, called: text}",
            "a score named 'text_words' is there already",
        ),
    ],
)
def test_scorers_that_cannot_be_are_refused_before_anything_is_loaded(load, scorers, complaint):
    filter_off = [] if "already" in complaint else ["filter=null"]
    with pytest.raises(ConfigError, match=complaint):
        runners.run(load("out", f"scorers=[{scorers}]", *filter_off))


def test_a_scorer_of_captions_is_refused_where_none_are_written(load):
    with pytest.raises(ConfigError, match="this run writes none"):
        runners.run(
            load("out", f"scorers=[{{name: caption_similarity, {BLIP}}}]", "captioner=null")
        )


def test_captioners_of_one_name_are_refused(load):
    with pytest.raises(ConfigError, match=r"captioner\[0\], captioner\[1\]: all are stored as"):
        runners.run(load("out", "captioner=[{name: toy_captioner}, {name: toy_captioner}]"))
    with pytest.raises(ConfigError, match="'web' is what the text of the source is called"):
        runners.run(load("out", "captioner=[{name: toy_captioner, called: web}]"))
    with pytest.raises(ConfigError, match="an empty list"):
        runners.run(load("out", "captioner=[]"))


@registry.register("scorer", "sometimes")
class Sometimes:
    """NaN for every second text."""

    of = "text"
    span = (0.0, 1.0)

    def score(self, batch):
        return [float("nan") if place % 2 else 1.0 for place in range(len(batch.pairs))]


def test_a_score_that_is_no_number_is_counted(capfilt, records):
    folder = capfilt("out", "scorers=[{name: sometimes}]", "captioner=null")
    stats = json.loads((folder / "stats.json").read_text())["scores"]["sometimes"]["web"]
    assert (stats["seen"], stats["scored"]) == (24, 24 - stats["missing"]["score is not a number"])
    values = [record["text_scores"]["sometimes"]["web"] for record in records(folder)]
    assert values.count(None) == stats["missing"]["score is not a number"] > 0


def test_facts_of_a_text():
    assert facts("") == dict.fromkeys(facts(""), 0)
    found = facts("The dog, the dog and a cat: 12!")
    assert (found["words"], found["characters"]) == (8, 31)
    assert found["repetition"] == 2 / 8  # the, dog
    assert found["stop_words"] == 4 / 8
    assert found["digits"] == 2 / 31


# ---- negCLIPLoss


def unit(shape, seed):
    drawn = numpy.random.default_rng(seed).standard_normal(shape)
    return drawn / numpy.linalg.norm(drawn, axis=1, keepdims=True)


def test_neg_clip_loss_is_the_clip_loss_of_a_pair_in_its_batch_negated():
    images, pair_texts, temperature = unit((6, 5), 0), unit((6, 5), 1), 0.07
    logits = torch.tensor(images @ pair_texts.T / temperature)
    places = torch.arange(6)
    losses = [
        torch.nn.functional.cross_entropy(one, places, reduction="none")
        for one in (logits, logits.T)
    ]
    found = contrasted(images, pair_texts, places.numpy(), temperature)
    expected = -temperature * sum(losses) / 2
    numpy.testing.assert_allclose(found, expected.numpy(), atol=1e-9)


def test_further_texts_of_an_image_are_not_contrasted():
    images, pair_texts = unit((4, 5), 0)[[0, 0, 1, 2]], unit((4, 5), 1)
    found = contrasted(images, pair_texts, numpy.array([0, 0, 1, 2]), 0.1)
    alone = contrasted(images[[0, 2, 3]], pair_texts[[0, 2, 3]], numpy.array([0, 1, 2]), 0.1)
    assert found[0] == pytest.approx(alone[0])


def test_a_text_that_fits_everything_falls_behind():
    images = numpy.eye(4)
    general = numpy.full(4, 0.5)
    pair_texts = numpy.stack([general, *images[1:]])
    found = contrasted(images, pair_texts, numpy.arange(4), 0.1)
    assert found[0] < found[1:].min()


class WithTemperature(torch.nn.Module):
    temperature = 0.1


def test_batches_are_drawn_by_seed_and_shard_and_every_pair_is_in_each_draw():
    def settle(seed, shard, draws=3):
        scorer = NegClipLoss(
            model=WithTemperature(), seed=seed, batch_size=4, contrast=4, draws=draws
        )
        values = [Features(*pair) for pair in zip(unit((10, 5), 0), unit((10, 5), 1), strict=True)]
        return scorer.settle(values, list(range(10)), shard)

    assert settle(0, 1) == settle(0, 1)
    assert settle(0, 1) != settle(1, 1)
    assert settle(0, 1) != settle(0, 2)
    assert len(settle(0, 0, draws=1)) == 10 == numpy.count_nonzero(settle(0, 0, draws=1))


def test_a_model_without_a_temperature_needs_one_given():
    with pytest.raises(ConfigError, match="has no temperature"):
        NegClipLoss(model=torch.nn.Linear(1, 1), seed=0, batch_size=1)


# ---- models of the zoo


def test_any_dual_encoder_scores_texts(capfilt, records):
    listed = "{name: itc, called: NAME, model: {name: NAME, type: tiny, checkpoint: random}}"
    both = ", ".join(listed.replace("NAME", name) for name in ("clip", "siglip"))
    folder = capfilt("out", f"scorers=[{both}]", "data.source.size=6", "filter=null")
    for record in records(folder):
        for name in ("clip", "siglip"):
            assert -1 <= record["text_scores"][name]["web"] <= 1


def test_the_config_of_the_scenes_runs_with_all_its_scores(tmp_path):
    config = configs.load_and_bind(
        "blip/capfilt_scores_scenes",
        ["data.source.limit=12", "runner.shard_size=6", f"run.output_dir={tmp_path}/out"],
    )
    runners.run(config)
    for record in read_records(tmp_path / "out"):
        assert record["sources"] == ["nucleus", "nucleus", "beam"]
        assert {"itm", "itc", "clip", "neg_clip_loss", "text_words"} <= set(record["text_scores"])


def test_a_perceptual_hash_hardly_changes_with_size_and_quality(monkeypatch):
    pytest.importorskip("imagehash")
    picture = Image.radial_gradient("L").rotate(30).convert("RGB")
    other = Image.linear_gradient("L").convert("RGB")
    batch = SimpleNamespace(pictures=[picture, picture.resize((97, 97)), other])
    hashes = registry.build("scorer", {"name": "phash"}).score(batch)
    assert all(len(one) == 16 for one in hashes)
    first, smaller, different = (int(one, 16) for one in hashes)
    assert (first ^ smaller).bit_count() < 8 < (first ^ different).bit_count()
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(ConfigError, match=r"pip install 'lavis_lite\[curation\]'"):
        registry.build("scorer", {"name": "phash"})


# ---- caption similarity


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory):
    """A random text encoder of transformers in a folder, as save_pretrained writes it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    BertModel(BertConfig(vocab_size=len(words), num_attention_heads=2, **shape)).save_pretrained(
        folder
    )
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def similarity_batch(web, captions):
    slots = [SimpleNamespace(is_web=True), *(SimpleNamespace(is_web=False) for _ in captions)]
    pairs = [SimpleNamespace(row=0, text=text) for text in (web, *captions)]
    return SimpleNamespace(pairs=pairs, slots=slots, captions=[captions])


def test_the_nearest_caption_counts_by_any_sentence_encoder(sentence_encoder):
    spec = {"name": "caption_similarity", "encoder": f"hf/{sentence_encoder}"}
    scorer = registry.build("scorer", spec)
    with torch.no_grad():
        near, *others = scorer.score(similarity_batch("a b c", ["d e", "a b c"]))
        (alone,) = scorer.score(similarity_batch("a b c", []))
        far, _ = scorer.score(similarity_batch("a b c", ["d e"]))
    assert near == pytest.approx(1, abs=1e-5)
    assert others == [None, None]
    assert alone is None
    assert far < near


def test_the_weights_of_an_encoder_are_a_part_of_the_fingerprint(sentence_encoder, capfilt):
    listed = f"scorers=[{{name: caption_similarity, encoder: hf/{sentence_encoder}}}]"
    folder = capfilt("out", listed)
    settings = json.loads((folder / "job.json").read_text())["settings"]
    assert "weights of the scorer caption_similarity itself" in settings


def test_caption_similarity_says_what_it_needs(sentence_encoder):
    with pytest.raises(ConfigError, match="give `model`, whose text tower is used, or `encoder`"):
        registry.build("scorer", {"name": "caption_similarity"})
    with pytest.raises(ConfigError, match="are written as 'hf/bert'"):
        registry.build("scorer", {"name": "caption_similarity", "encoder": "bert"})
    with pytest.raises(ConfigError, match="Linear lacks encode_text, text_features"):
        registry.build("scorer", {"name": "caption_similarity"}, model=torch.nn.Linear(1, 1))
