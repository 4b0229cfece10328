"""lavis-lite caption, match, search, answer: rows, formats, exit codes, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lavis_lite import load_model_and_preprocess
from lavis_lite.cli import command as command_module
from lavis_lite.cli import tasks
from lavis_lite.errors import DownloadError
from lavis_lite.models import zoo
from lavis_lite.modules.interfaces import Localizes
from lavis_lite.registry import cards

Command = Callable[..., Any]
SCENES = ("--type", "scenes")
SHORT = ("--min-length", 5)


def rows(output: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.out.splitlines()]


def pixels(pictures: Path, process: Any) -> torch.Tensor:
    files = [*(f"scene{n}.png" for n in range(4)), "below/scene4.png"]
    return torch.stack([process(Image.open(pictures / name)) for name in files])


def in_order(pictures: Path) -> list[str]:
    return [str(pictures / "below/scene4.png"), *(f"{pictures}/scene{n}.png" for n in range(4))]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("task", ["caption", "match", "search", "answer"])
def test_each_command_gives_figures_close_to_those_of_whole_weights(
    command: Command, pictures: Path, task: str, dtype: str
) -> None:
    asked = {"caption": (), "answer": ("--question", "what color is the circle?")}
    arguments = (task, pictures, *SCENES, *asked.get(task, ("--text", "a red circle")))
    found = rows(command(*arguments, "--dtype", dtype))
    whole = rows(command(*arguments))
    assert len(found) == len(whole) > 0
    for ours, theirs in zip(found, whole, strict=True):
        assert ours.keys() == theirs.keys()
        if "cosine" in ours and ours["image"] == theirs["image"]:
            assert ours["cosine"] == pytest.approx(theirs["cosine"], abs=0.02)


# ---- caption


def test_caption_describes_every_image_as_the_model_does(command: Command, pictures: Path) -> None:
    output = command("caption", pictures, *SCENES, *SHORT)
    model, images, _ = load_model_and_preprocess("blip_caption", "scenes", is_eval=True)
    wanted = model.generate({"image": pixels(pictures, images["eval"])}, min_length=5)
    assert (output.code, output.err) == (0, "")
    found = {row["image"]: row["caption"] for row in rows(output)}
    assert list(found) == in_order(pictures)
    assert [found[name] for name in in_order(pictures)] == [wanted[4], *wanted[:4]]


def test_captions_do_not_depend_on_the_batch(command: Command, pictures: Path) -> None:
    words = ["caption", pictures, *SCENES, *SHORT]
    for drawn in ([], ["--sample", "--seed", 3]):
        one = rows(command(*words, *drawn, "--batch-size", 1))
        assert one == rows(command(*words, *drawn, "--batch-size", 4))
    assert one != rows(command(*words, "--sample", "--seed", 4))


def test_several_captions_of_an_image_are_a_list(command: Command, pictures: Path) -> None:
    words = ["caption", pictures / "scene0.png", *SCENES, *SHORT]
    (row,) = rows(command(*words, "--num-captions", 3, "--num-beams", 4))
    assert len(set(row["captions"])) == 3
    assert row["captions"][0] == rows(command(*words, "--num-beams", 4))[0]["caption"]


def test_an_unreadable_image_is_told_at_the_end_and_costs_no_other(
    command: Command, pictures: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0")
    output = command("caption", broken, pictures / "scene0.png", tmp_path / "gone.png", *SCENES)
    assert output.code == 1
    assert [row["image"] for row in rows(output)] == [str(pictures / "scene0.png")]
    assert output.err.startswith("2 of 3 could not be read:\n")
    assert f"  {broken}: " in output.err
    assert f"  {tmp_path / 'gone.png'}: no such file" in output.err


def test_without_any_image_no_model_is_loaded(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "load_model_and_preprocess", None)
    output = command("caption", tmp_path / "gone.png", tmp_path)
    assert (output.code, output.out) == (2, "")
    assert "gone.png: no such file" in output.err
    assert "no images in this folder" in output.err


# ---- formats


def test_rows_go_to_a_file_where_one_is_named(
    command: Command, pictures: Path, tmp_path: Path
) -> None:
    words = ["caption", pictures, *SCENES, *SHORT]
    output = command(*words, "--out", tmp_path / "new" / "captions.jsonl")
    assert (output.code, output.out) == (0, "")
    assert (tmp_path / "new" / "captions.jsonl").read_text() == command(*words).out
    (tmp_path / "file").write_text("")
    refused = command(*words, "--out", tmp_path / "file" / "x.jsonl")
    assert refused.code == 2
    assert refused.err.startswith(f"ConfigError: --out: {tmp_path}/file/x.jsonl cannot be written")


def test_a_table_has_its_columns_side_by_side(command: Command, pictures: Path) -> None:
    output = command(
        "match", pictures / "scene0.png", *SCENES, "--text", "a star", "--format", "table"
    )
    head, row = output.out.splitlines()
    assert head.split() == ["image", "text", "match", "cosine"]
    assert row[head.index("text") :].startswith("a star")
    assert len(row[head.index("match") :].split()[0]) == len("0.1234")


def test_what_was_found_before_an_interruption_is_kept(
    command: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Iterator[dict[str, str]]:
        yield {"image": "one.png", "caption": "a cat"}
        raise KeyboardInterrupt

    monkeypatch.setitem(command_module.TASKS, "caption", interrupted)
    for form in ("jsonl", "table"):
        output = command("caption", pictures, *SCENES, "--out", tmp_path / "x", "--format", form)
        assert output.code == 130
        assert "a cat" in (tmp_path / "x").read_text()


# ---- match


def test_match_gives_the_models_probability_and_cosine(
    command: Command, pictures: Path, captions: list[str]
) -> None:
    texts = [captions[0], captions[1]]
    output = command("match", pictures, *SCENES, "--text", texts[0], "--text", texts[1])
    model, images, process = load_model_and_preprocess(
        "blip_image_text_matching", "scenes", is_eval=True
    )
    image = pixels(pictures, images["eval"])
    with torch.no_grad():
        for text in texts:
            samples = {"image": image, "text_input": [process["eval"](text)] * 5}
            probability = model(samples).softmax(-1)[:, 1].tolist()
            cosine = model(samples, match_head="itc")[:, 0].tolist()
            found = [row for row in rows(output) if row["text"] == text]
            assert [row["image"] for row in found] == in_order(pictures)
            wanted = [probability[4], *probability[:4]]
            assert [row["match"] for row in found] == pytest.approx(wanted, abs=2e-5)
            wanted = [cosine[4], *cosine[:4]]
            assert [row["cosine"] for row in found] == pytest.approx(wanted, abs=2e-5)
    best = [row for row in rows(output) if row["match"] > 0.5]
    assert (str(pictures / "scene0.png"), texts[0]) in [(r["image"], r["text"]) for r in best]


def test_an_overlay_shows_each_text_on_each_picture(
    command: Command, pictures: Path, tmp_path: Path
) -> None:
    words = ["match", f"{pictures}/scene[01].png", *SCENES, "--text", "a star", "--text", "a box"]
    output = command(*words, "--overlay", tmp_path / "where")
    written = [row["overlay"] for row in rows(output)]
    assert [Path(path).name for path in written] == [
        "0001-scene0-1.png",
        "0001-scene0-2.png",
        "0002-scene1-1.png",
        "0002-scene1-2.png",
    ]
    picture = Image.open(pictures / "scene0.png").convert("RGB")
    shown = [Image.open(path) for path in written]
    assert {image.size for image in shown} == {picture.size}
    assert shown[0].tobytes() not in (picture.tobytes(), shown[1].tobytes())


def test_an_overlay_of_a_model_that_cannot_tell_where_is_refused(
    command: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.Session, "can", lambda self, *asked: Localizes not in asked)
    output = command("match", pictures, *SCENES, "--text", "x", "--overlay", tmp_path / "where")
    assert output.code == 2
    assert "--overlay: BlipITM cannot tell where in an image a text is found" in output.err


# ---- search


def test_search_ranks_as_looking_closely_at_every_image_would(
    command: Command, pictures: Path, captions: list[str]
) -> None:
    words = [word for caption in captions for word in ("--text", caption)]
    found = rows(command("search", pictures, *SCENES, *words, "--top", 5))
    model, images, process = load_model_and_preprocess(
        "blip_image_text_matching", "scenes", is_eval=True
    )
    texts = [process["eval"](caption) for caption in captions]
    with torch.no_grad():
        tokens = model.encode_image(pixels(pictures, images["eval"]))
        scores = model.rank(tokens, texts)
        scores += model.image_embeds(tokens) @ model.text_embeds(model.encode_text(texts)).T
    names = [*in_order(pictures)[1:], in_order(pictures)[0]]
    for column, caption in enumerate(captions):
        mine = [row for row in found if row["text"] == caption]
        assert [row["rank"] for row in mine] == [1, 2, 3, 4, 5]
        order = scores[:, column].argsort(descending=True).tolist()
        assert [row["image"] for row in mine] == [names[n] for n in order]
        wanted = scores[:, column].sort(descending=True).values.tolist()
        assert [row["score"] for row in mine] == pytest.approx(wanted, abs=1e-4)
    first = [row["image"] for row in found if row["rank"] == 1]
    assert first == names  # each text finds its own picture


def test_search_looks_closely_at_the_nearest_alone(
    command: Command, pictures: Path, captions: list[str], tmp_path: Path
) -> None:
    words = ["search", pictures, *SCENES, "--text", captions[2], "--top", 2, "--rerank", 2]
    every = rows(command("match", pictures, *SCENES, "--text", captions[2]))
    nearest = sorted(every, key=lambda row: -row["cosine"])[:2]
    found = rows(command(*words, "--overlay", tmp_path))
    assert {row["image"] for row in found} == {row["image"] for row in nearest}
    assert all(Path(row["overlay"]).is_file() for row in found)


def test_a_model_that_only_embeds_is_compared_by_cosine(command: Command, pictures: Path) -> None:
    clip = ("--model", "clip", "--type", "tiny", "--batch-size", 2)
    torch.manual_seed(0)
    matched = rows(command("match", pictures, *clip, "--text", "a star"))
    assert [set(row) for row in matched] == [{"image", "text", "cosine"}] * 5
    torch.manual_seed(0)  # random weights: the same
    found = rows(command("search", pictures, *clip, "--text", "a star", "--top", 3))
    best = sorted(matched, key=lambda row: -row["cosine"])[:3]
    assert [row["image"] for row in found] == [row["image"] for row in best]
    assert [row["score"] for row in found] == [row["cosine"] for row in found]


# ---- answer


def test_answer_gives_the_models_answers(command: Command, pictures: Path, tmp_path: Path) -> None:
    questions = ["--question", "What colour is it?", "--question", "how many stars are there?"]
    tiny = ("--type", "tiny", "--checkpoint", tmp_path / "model")
    model, images, process = load_model_and_preprocess("blip_vqa", "tiny", is_eval=True)
    model.save_pretrained(tmp_path / "model")
    written = rows(command("answer", pictures, *tiny, *questions))
    assert len(written) == 10
    assert [row["question"] for row in written[:2]] == [questions[1], questions[3]]
    samples = {
        "image": pixels(pictures, images["eval"])[4:],
        "text_input": [process["eval"](questions[1])],
    }
    (answer,) = model.predict_answers(samples, inference_method="generate")
    assert written[0] == {
        "image": in_order(pictures)[0],
        "question": questions[1],
        "answer": answer,
    }
    (tmp_path / "answers.txt").write_text("red\nblue\n\ngreen\n")
    chosen = rows(
        command("answer", pictures, *tiny, *questions, "--answers", tmp_path / "answers.txt")
    )
    assert {row["answer"] for row in chosen} <= {"red", "blue", "green"}
    refused = command("answer", pictures, *tiny, *questions, "--answers", tmp_path / "none.txt")
    assert refused.code == 2
    assert "--answers" in refused.err


# ---- which model


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("caption", "blip_caption"),
        ("match", "blip_image_text_matching"),
        ("search", "blip_image_text_matching"),
        ("answer", "blip_vqa"),
    ],
)
def test_each_task_has_a_model(task: str, name: str) -> None:
    assert cards.default_for(task) == name


def test_a_saved_model_is_used_by_its_folder_alone(
    command: Command, pictures: Path, tmp_path: Path
) -> None:
    model, images, _ = load_model_and_preprocess("blip_pretrain", "tiny", is_eval=True)
    model.save_pretrained(tmp_path)
    image = images["eval"](Image.open(pictures / "scene0.png"))[None]
    wanted = model.generate({"image": image}, max_length=8, min_length=2, num_beams=1)
    words = [pictures / "scene0.png", "--checkpoint", tmp_path]
    lengths = ["--max-length", 8, "--min-length", 2, "--num-beams", 1]
    (row,) = rows(command("caption", *words, *lengths))
    assert row["caption"] == wanted[0]
    (row,) = rows(command("match", *words, "--text", "a cross"))
    assert 0 < row["match"] < 1


def test_a_model_that_cannot_do_the_task_names_those_that_can(
    command: Command, pictures: Path
) -> None:
    output = command("answer", pictures, "--question", "why?", "--model", "blip_caption")
    assert output.code == 2
    assert "'blip_caption' cannot answer: it lacks predict_answers" in output.err
    able = output.err.partition("Models that can: ")[2].strip().split(", ")
    assert "blip_vqa" in able
    assert not {"blip_caption", "blip_retrieval"} & {*able}
    unknown = command("caption", pictures, "--model", "blip_captoin")
    assert unknown.code == 2
    assert "Did you mean 'blip_caption'?" in unknown.err


def test_weights_that_cannot_be_fetched_name_a_type_that_is_here(
    command: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise DownloadError("https://example.org/model.pth: offline")

    monkeypatch.setattr(zoo, "load_model_and_preprocess", refuse)
    output = command("caption", pictures)
    assert output.code == 2
    assert "https://example.org/model.pth: offline. Or `--type scenes`: a small" in output.err


def test_a_device_that_is_not_here_is_refused_by_its_option(
    command: Command, pictures: Path
) -> None:
    output = command("caption", pictures, *SCENES, "--device", "gpu")
    assert output.code == 2
    assert "--device: 'gpu' is not a device" in output.err
    output = command("caption", pictures, *SCENES, "--batch-size", "0")
    assert output.code == 2
    assert "at least 1, not 0" in output.err


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from lavis_lite import cli\n"
        "for task in ('caption', 'match', 'search', 'answer'):\n"
        "    try: cli.main([task, '--help'])\n"
        "    except SystemExit: pass\n"
        "print([m for m in ('torch', 'PIL', 'timm', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "--overlay" in done.stdout
