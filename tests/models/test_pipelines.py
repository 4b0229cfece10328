"""Tasks in one line: inputs in every form, results in the shapes that transformers 4 gave."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_lite import load_model, load_model_and_preprocess, pipeline, registry
from lavis_lite.errors import ConfigError, DataError, NotFinite, UnknownName
from lavis_lite.models.pipelines import build, reading
from lavis_lite.models.pipelines.reading import read_ahead
from lavis_lite.registry import cards


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    scenes = registry.build("dataset", {"name": "scenes", "split": "test", "size": 5})
    return [scenes[number]["image"] for number in range(5)]


@pytest.fixture(scope="module")
def captioner() -> Any:
    return pipeline("image-to-text", model="blip_caption.scenes")


@pytest.fixture(scope="module")
def answerer() -> Any:
    return pipeline("visual-question-answering", "blip_vqa.scenes", device="cpu")


@pytest.fixture(scope="module")
def matcher() -> Any:
    return pipeline("image-text-matching", "blip_image_text_matching.scenes")


QUESTION = "what color is the circle?"


# ---- inputs


def test_a_picture_in_every_form_gives_the_same_caption(
    captioner: Any, pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures[0].save(path := tmp_path / "a.png")
    fetched: list[tuple[str, float]] = []

    def fetch(url: str, seconds: float) -> bytes:
        fetched.append((url, seconds))
        return path.read_bytes()

    monkeypatch.setattr(reading, "fetch_image", fetch)
    pixels = np.array(pictures[0])
    forms = {
        "a picture": pictures[0],
        "a path": path,
        "a path as text": str(path),
        "a URL": "https://example.org/a.png",
        "bytes": path.read_bytes(),
        "an array": pixels,
        "a tensor": torch.from_numpy(pixels).permute(2, 0, 1),
        "prepared": load_model_and_preprocess("blip_caption", "tiny")[1]["eval"](pictures[0]),
        "a row of a dataset": {"image": pictures[0]},
    }
    wanted = captioner.model.generate({"image": pictures[0]})
    for label, form in forms.items():
        assert captioner(form, timeout=3) == [{"generated_text": wanted[0]}], label
    assert fetched == [("https://example.org/a.png", 3.0)]


def test_several_pictures_give_a_list_of_results_in_order(
    captioner: Any, pictures: list[Image.Image]
) -> None:
    each = [captioner(picture) for picture in pictures]
    assert len({result[0]["generated_text"] for result in each}) > 1
    assert captioner(pictures, batch_size=2) == each
    assert captioner(tuple(pictures)) == each
    assert captioner(images=pictures) == each
    assert captioner(np.stack([np.array(picture) for picture in pictures])) == each
    assert captioner([]) == []


def test_a_dataset_and_a_generator_give_results_lazily(
    captioner: Any, pictures: list[Image.Image]
) -> None:
    class Rows:
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, number: int) -> dict[str, Any]:
            return {"image": pictures[number], "text_input": "a text"}

    for lazy in (captioner(Rows(), batch_size=2), captioner(p for p in pictures)):
        assert isinstance(lazy, Iterator)
        assert list(lazy) == captioner(pictures)


def test_an_endless_generator_is_read_two_batches_ahead_at_most(
    captioner: Any, pictures: list[Image.Image]
) -> None:
    taken = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal taken
        while True:
            taken += 1
            yield pictures[0]

    results = captioner(endless(), batch_size=2, max_new_tokens=1)
    assert taken == 0
    for number in range(1, 8):
        next(results)
        assert taken <= number + 4
    results.close()


def test_what_is_read_ahead_is_bounded_and_in_order() -> None:
    read: list[int] = []
    batches = read_ahead(iter(range(100)), lambda n: read.append(n) or -n, size=3)
    assert next(batches) == [(0, 0), (1, -1), (2, -2)]
    assert len(read) <= 6
    assert [item for batch in batches for item, _ in batch] == list(range(3, 100))


def test_one_bad_picture_is_an_error_or_a_result_of_its_own(
    captioner: Any, pictures: list[Image.Image], tmp_path: Path
) -> None:
    given = [pictures[0], str(tmp_path / "gone.png"), pictures[1]]
    with pytest.raises(DataError, match=r"image 1: .*gone\.png: missing file"):
        captioner(given)
    found = captioner(given, on_error="return")
    assert [found[0], found[2]] == captioner([pictures[0], pictures[1]])
    assert "missing file" in found[1]["error"]


def test_no_bar_is_drawn_where_there_is_no_terminal(
    captioner: Any,
    pictures: list[Image.Image],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lavis_lite.models.pipelines import base

    monkeypatch.setattr(base, "SHOWN_AFTER", 0.0)
    captioner(pictures)
    assert capsys.readouterr().err == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    captioner(pictures, batch_size=1)
    assert "/5" in terminal.getvalue()


# ---- tasks


def test_captions_take_the_options_of_transformers_and_ours(
    captioner: Any, pictures: list[Image.Image]
) -> None:
    many = captioner(pictures[0], generate_kwargs={"num_return_sequences": 2, "do_sample": True})
    assert [sorted(one) for one in many] == [["generated_text"]] * 2
    ours = captioner.model.generate({"image": pictures[0]}, num_beams=1, max_length=12)
    prompt = captioner.model.prompt_length
    for given in (
        {"generate_kwargs": {"num_beams": 1, "max_length": 12}},
        {"generate_kwargs": {"num_beams": 1}, "max_new_tokens": 12 - prompt},
    ):
        assert captioner(pictures[0], **given) == [{"generated_text": ours[0]}]
    short = captioner(pictures[0], max_new_tokens=2)[0]["generated_text"]
    assert len(captioner.model.tokenizer.encode([short], 40).ids[0]) - 2 <= 2


def test_drawn_captions_belong_to_the_place_of_a_picture_and_not_to_its_batch(
    captioner: Any, pictures: list[Image.Image]
) -> None:
    drawn = {"do_sample": True}
    one = captioner(pictures, generate_kwargs=drawn, batch_size=1)
    assert one == captioner(pictures, generate_kwargs=drawn, batch_size=4)
    assert one != captioner(pictures, generate_kwargs=drawn, seed=1)


def test_questions_are_paired_with_pictures_as_they_are_given(
    answerer: Any, pictures: list[Image.Image]
) -> None:
    (found,) = answerer(pictures[0], QUESTION)
    assert set(found) == {"answer", "score"}
    assert 0 < found["score"] <= 1
    assert answerer(image=pictures[0], question=QUESTION, top_k=1) == [found]
    assert answerer({"image": pictures[0], "question": QUESTION}) == [found]
    assert answerer([{"image": pictures[0], "question": QUESTION}]) == [[found]]
    both = answerer(pictures[0], [QUESTION, "how many objects are there?"])
    assert both[0] == [found]
    each = answerer(pictures[:2], QUESTION)
    assert each[0][0]["answer"] == found["answer"]
    assert each[0][0]["score"] == pytest.approx(found["score"], rel=1e-4)
    assert [len(each), len(each[1])] == [2, 1]
    lazy = answerer(({"image": p, "question": QUESTION} for p in pictures[:2]), batch_size=1)
    assert next(lazy)[0]["answer"] == found["answer"]
    wanted = answerer.model.predict_answers(
        {"image": pictures[0], "text_input": QUESTION}, inference_method="generate"
    )
    assert [found["answer"]] == wanted


def test_the_score_of_an_answer_is_the_probability_of_writing_it(
    answerer: Any, pictures: list[Image.Image]
) -> None:
    listed = ["red", "navy blue", "green"]
    found = answerer(pictures[0], QUESTION, answer_list=listed)
    assert {one["answer"] for one in found} == set(listed)
    assert [one["score"] for one in found] == sorted((o["score"] for o in found), reverse=True)
    assert answerer(pictures[0], QUESTION, answer_list=listed, top_k=2) == found[:2]
    model = answerer.model
    with torch.no_grad():
        tokens = model.encode_image(pictures[0])
        states, mask = model.read_questions(tokens, model.tokenize([QUESTION]))
        context = model.question_context(states)
        for one in found:
            answer = model.tokenize_answers([one["answer"]])
            logits = model.word_logits(model.answer_states(context, mask, answer)[0])
            chance = logits.softmax(-1).gather(1, answer.ids[0, 1:, None]).prod()
            assert one["score"] == pytest.approx(chance.item(), rel=1e-4)


def test_matching_scores_every_text_of_every_picture(
    matcher: Any, pictures: list[Image.Image]
) -> None:
    texts = ["a red circle", "a star"]
    found = matcher(pictures[:2], text=texts)
    assert [[one["text"] for one in row] for row in found] == [texts, texts]
    with torch.no_grad():
        tokens = matcher.model.encode_image(pictures[0])
        match = matcher.model.match(tokens, texts[:1]).softmax(-1)[0, 1].item()
    assert found[0][0]["score"] == found[0][0]["match"] == pytest.approx(match, rel=1e-4)
    (one,) = matcher(pictures[0], text="a red circle")
    assert one["score"] == pytest.approx(match, rel=1e-4)
    assert -1 <= one["cosine"] <= 1


def test_retrieval_ranks_pictures_and_remembers_only_the_best(
    pictures: list[Image.Image], tmp_path: Path
) -> None:
    retriever = pipeline("image-text-retrieval", "blip_image_text_matching.scenes")
    texts = ["a big violet triangle", "a big yellow disc"]
    alone = retriever(pictures, text=texts[0], top_k=2)
    assert len(alone) == 2
    assert alone[0]["index"] == 1
    assert alone[0]["score"] >= alone[1]["score"]
    both = retriever(iter(pictures), text=texts, top_k=5, batch_size=2)
    assert [row[0]["index"] for row in both] == [1, 3]
    assert sorted(one["index"] for one in both[0]) == [0, 1, 2, 3, 4]
    pictures[1].save(path := tmp_path / "a.png")
    assert retriever([path], text=texts[0])[0]["image"] == str(path)


@pytest.mark.parametrize("name", ["clip.scenes", "siglip.tiny", "blip_image_text_matching.scenes"])
def test_zero_shot_classification_sorts_labels_by_score(
    name: str, pictures: list[Image.Image]
) -> None:
    labels = ["a green star", "a red circle", "a violet triangle"]
    classifier = pipeline("zero-shot-image-classification", name)
    found = classifier(pictures[1], candidate_labels=labels, hypothesis_template="{}")
    assert sorted(one["label"] for one in found) == labels
    scores = [one["score"] for one in found]
    assert scores == sorted(scores, reverse=True)
    if name == "siglip.tiny":
        model = classifier.model
        with torch.no_grad():
            cosine = (
                model.image_features(model.encode_image(pictures[1]))
                @ model.text_features(model.encode_text([found[0]["label"]])).T
            )
            chance = (cosine / model.temperature + model.logit_bias).sigmoid().item()
        assert scores[0] == pytest.approx(chance, rel=1e-4)
    else:
        assert sum(scores) == pytest.approx(1)
    templated = classifier([pictures[1]], candidate_labels=labels)[0]
    assert templated != found


def test_features_are_nested_lists_or_tensors_of_pictures_or_texts(
    pictures: list[Image.Image],
) -> None:
    extractor = pipeline("image-feature-extraction", "clip.scenes")
    tokens = extractor(pictures[0], return_tensors=True)
    with torch.no_grad():
        wanted = extractor.model.encode_image(pictures[0])
    torch.testing.assert_close(tokens, wanted)
    assert extractor(pictures[0]) == tokens.tolist()
    assert len(extractor(pictures[:2])) == 2
    pooled = extractor(pictures[0], pool=True, return_tensors="pt")
    texts = extractor(text=["a red circle", "a star"], pool=True, return_tensors=True)
    assert pooled.shape == texts[0].shape == (1, 64)
    assert pooled.norm().item() == pytest.approx(1, abs=1e-5)
    assert extractor(text="a star", return_tensors="pt").shape[::2] == (1, 96)


# ---- which model


def test_a_folder_and_a_loaded_model_are_taken(
    captioner: Any, pictures: list[Image.Image], tmp_path: Path
) -> None:
    model: Any = load_model("blip_caption", "scenes")
    model.save_pretrained(tmp_path / "saved")
    wanted = captioner(pictures[0])
    for given in (str(tmp_path / "saved"), tmp_path / "saved", model):
        for task in ("image-to-text", None):
            found = pipeline(task, model=given, device=-1, torch_dtype=torch.float32)
            assert found.task == "image-to-text"
            assert found.device == torch.device("cpu")
            assert found(pictures[0]) == wanted
    assert not model.training


def test_without_a_task_it_is_what_the_model_is_for() -> None:
    for name, task in {
        "blip_vqa.tiny": "visual-question-answering",
        "blip_retrieval.tiny": "image-text-matching",
        "clip.tiny": "image-text-matching",
    }.items():
        assert pipeline(model=name).task == task


def test_ids_of_the_hub_that_transformers_knows_are_our_models(
    monkeypatch: pytest.MonkeyPatch, captioner: Any
) -> None:
    asked: list[Any] = []

    def opened(*words: Any, **options: Any) -> Any:
        asked.append((words, options))
        return captioner.session

    monkeypatch.setattr(build, "open_session", opened)
    for name, repository in (
        ("blip_caption.base_coco", "Salesforce/blip-image-captioning-base"),
        ("blip_caption.large_coco", "Salesforce/blip-image-captioning-large"),
    ):
        pipeline("image-to-text", model=repository, dtype=torch.float16)
        words, options = asked.pop()
        assert words == ("caption", *name.split("."), repository, "auto", "fp16")
        assert options == {"option": ""}
    pipeline("vqa", model="Salesforce/blip-vqa-base", model_kwargs={"max_length": 20})
    words, options = asked.pop()
    assert words[1:4] == ("blip_vqa", "vqav2", "Salesforce/blip-vqa-base")
    assert options == {"option": "", "image_size": 384, "max_length": 20}
    pipeline("zero-shot-image-classification", model="openai/clip-vit-base-patch32")
    assert asked.pop()[0][1:3] == ("clip", "ViT-B-32")


def test_each_task_has_a_model_of_its_own() -> None:
    found = {kind.task: cards.default_for(kind.needs) for kind in build.TASKS.values()}
    assert found == {
        "image-to-text": "blip_caption",
        "visual-question-answering": "blip_vqa",
        "image-text-matching": "blip_image_text_matching",
        "image-text-retrieval": "blip_image_text_matching",
        "zero-shot-image-classification": "clip",
        "feature-extraction": "blip_feature_extractor",
    }


def test_the_words_of_transformers_that_mean_nothing_here_are_taken(
    pictures: list[Image.Image],
) -> None:
    name = "blip_caption.tiny"
    found = pipeline(
        "image-to-text", model=name, tokenizer=name, framework="pt", use_fast=True, device_map="cpu"
    )
    assert found.device == torch.device("cpu")
    assert len(found(pictures[0], num_workers=2)) == 1


# ---- wrong calls


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({}, "no inputs; a path, a URL"),
        ({"inputs": 3}, r"an int \(3\); a path"),
        ({"inputs": "."}, "a folder; give its files"),
        ({"inputs": [["a.png", "b.png"]]}, "image 0"),
        ({"inputs": np.zeros((3, 3))}, r"image: an array \(3, 3\) of float64"),
        ({"max_new_token": 3}, "Did you mean 'max_new_tokens'"),
        ({"max_new_tokens": "3"}, "max_new_tokens: int is expected"),
        ({"generate_kwargs": {"num_beam": 3}}, "takes no num_beam. Did you mean 'num_beams'"),
        ({"generate_kwargs": {"max_new_tokens": 3}, "max_new_tokens": 3}, "given twice"),
        ({"prompt": "a photo of"}, r"model_kwargs=\{\"prompt\": 'a photo of'\}"),
        ({"batch_size": 0}, "batch_size: 0; a whole number"),
        ({"on_error": "skip"}, "on_error: 'skip'"),
    ],
)
def test_a_wrong_call_is_told_what_is_taken(
    call: dict[str, Any], says: str, captioner: Any, pictures: list[Image.Image]
) -> None:
    given = call if "inputs" in call or not call else {"inputs": pictures[0], **call}
    with pytest.raises((ConfigError, DataError), match=says):
        captioner(**given)


def test_wrong_questions_and_texts_are_told_what_is_taken(
    answerer: Any, matcher: Any, pictures: list[Image.Image]
) -> None:
    picture = pictures[0]
    for call, says in (
        (lambda: answerer(picture), "without a question; give question="),
        (lambda: answerer(picture, 3), "question: an int"),
        (lambda: answerer(pictures, [QUESTION] * 2), "2 questions for 5 images"),
        (lambda: answerer({"image": picture, "qestion": QUESTION}), "question"),
        (lambda: answerer(picture, QUESTION, top_k=0), "top_k: 0"),
        (lambda: answerer(picture, QUESTION, answer_list="red"), "a list of answers"),
        (lambda: matcher(picture), "give text; it takes text"),
        (lambda: matcher(picture, text=[]), "text: no texts"),
        (lambda: matcher(picture, text=[" "]), "an empty text"),
        (lambda: matcher(picture, text=3), "text: an int"),
    ):
        with pytest.raises(ConfigError, match=says):
            call()


def test_a_task_that_is_not_here_is_told_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'image-to-text'"):
        pipeline("image-totext")
    with pytest.raises(UnknownName, match="transformers that no model here does"):
        pipeline("text-generation")
    with pytest.raises(ConfigError, match=r"'clip' cannot caption: it lacks generate\. Models"):
        pipeline("image-to-text", model="clip.scenes")
    with pytest.raises(ConfigError, match="cannot answer"):
        pipeline("vqa", model=load_model("blip_caption", "tiny"))


def test_numbers_that_are_none_are_no_result(pictures: list[Image.Image]) -> None:
    broken = pipeline("image-to-text", "blip_caption.tiny")
    with torch.no_grad():
        broken.model.text_decoder.cls.predictions.bias.fill_(float("nan"))
    with pytest.raises(NotFinite, match="the logits of a text of image 0"):
        broken(pictures[:1])
    assert "NaN" in broken(pictures[0], on_error="return")["error"]
