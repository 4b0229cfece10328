"""Several texts of a sample: which one is drawn, from every kind of source, and what is refused."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections import Counter

import numpy
import pytest
from PIL import Image

from lavis_lite import registry
from lavis_lite.data.image_processors import BlipImageTrain
from lavis_lite.data.loader import EvalData, Processors, TrainData
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.data.seeding import generator
from lavis_lite.data.several_texts import Texts, draw_text, probabilities, text_fields
from lavis_lite.data.text_processors import BlipCaption, SubCaption
from lavis_lite.errors import ConfigError, DataError

PROCESSORS = Processors(BlipImageTrain(image_size=8), BlipCaption())
SHARES = {"web": 0.25, "synthetic": 0.75}


def png(number=0):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def source(tmp_path):
    """``source(kind)`` -> a dataset of 12 images, each with a web text and two synthetic ones."""
    rows = []
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(png(number))
        rows.append(
            {
                "image": f"{number}.png",
                "web": f"web {number}",
                "synthetic": [f"first {number}", f"second {number}"],
            }
        )

    def build(kind, **options):
        path = tmp_path / f"rows.{kind}"
        if kind == "json":
            path.write_text(json.dumps(rows))
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif kind == "csv":
            flat = (f"{r['image']},{r['web']},{r['synthetic'][0]}" for r in rows)
            path.write_text("image,web,synthetic\n" + "\n".join(flat))
        elif kind == "parquet":
            pyarrow = pytest.importorskip("pyarrow")
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            return tar(tmp_path, rows, **options)
        return registry.build("dataset", {"name": kind, "path": str(path), **options})

    return build


def tar(folder, rows, texts=None, **options):
    with tarfile.open(folder / "shard.tar", "w") as file:
        for number, row in enumerate(rows):
            members = {"png": png(number), "txt": row["web"].encode()}
            members["json"] = json.dumps({"synthetic": row["synthetic"], "texts": "own"}).encode()
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{number:03d}.{extension}")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    if texts is not None:
        names = {"web": "txt", "synthetic": "json:synthetic"}
        options["texts"] = {names.get(name, name): share for name, share in texts.items()}
    return registry.build(
        "dataset", {"name": "webdataset", "shards": str(folder / "shard.tar"), **options}
    )


def train(dataset, start=0, stop=60, seed=0, num_workers=0, processors=PROCESSORS):
    data = TrainData(
        [dataset],
        [None],
        processors,
        batch_size=4,
        num_workers=num_workers,
        seed=seed,
        quarantine=Quarantine(),
    )
    return [batch["text_input"] for batch in data.batches(start, stop)]


KINDS = ["json", "jsonl", "csv", "parquet", "webdataset"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_one_row_and_training_draws_one_of_its_texts(source, kind):
    dataset = source(kind, texts=SHARES)
    assert len(dataset) == 12
    drawn = Counter(text.split()[0] for batch in train(dataset, 0, 300) for text in batch)
    assert 0.2 < drawn["web"] / 1200 < 0.3
    if kind == "csv":
        assert set(drawn) == {"web", "first"}
    else:
        assert 0.325 < drawn["first"] / 1200 < 0.425
        assert set(drawn) == {"web", "first", "second"}
    texts = Counter(text for batch in train(dataset, 0, 3) for text in batch)
    assert sorted(int(text.split()[1]) for text in texts) == list(range(12))  # an epoch


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_reads_the_first_text_of_the_first_source(source, kind):
    data = EvalData(source(kind, texts=SHARES), PROCESSORS, batch_size=5)
    for _ in range(2):
        texts = [text for batch in data.batches() for text in batch["text_input"]]
        assert texts == [f"web {number}" for number in range(12)]
    reverse = {"synthetic": 0.75, "web": 0.25}
    assert source(kind, texts=reverse).annotation(3)["text_input"] == "first 3"


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_draws_the_texts_of_the_whole_one(source, kind):
    dataset = source(kind, texts=SHARES)
    whole = train(dataset, 0, 20)
    assert train(dataset, 0, 7) + train(dataset, 7, 20) == whole
    assert train(dataset, 0, 20, num_workers=2) == whole
    assert train(dataset, 0, 20, seed=1) != whole


def test_the_draw_leaves_the_image_and_other_datasets_as_they_were(source):
    one, several = source("json", text="web"), source("json", texts=SHARES)
    plain = train(one, 0, 6)
    assert [[int(t.split()[1]) for t in batch] for batch in plain] == [
        [int(t.split()[1]) for t in batch] for batch in train(several, 0, 6)
    ]
    assert not hasattr(one, "augment")
    assert "texts" not in one.annotation(0)


def test_a_list_in_a_shard_is_drawn_from_equally(source):
    dataset = source("webdataset", text="json:synthetic")
    assert dataset.annotation(2)["text_input"] == "first 2"
    drawn = Counter(text.split()[0] for batch in train(dataset, 0, 100) for text in batch)
    assert 0.4 < drawn["first"] / 400 < 0.6
    assert drawn["first"] + drawn["second"] == 400


def test_a_field_of_one_s_own_named_texts_is_left_alone(source):
    dataset = source("webdataset")
    assert dataset.annotation(0)["texts"] == "own"
    assert train(dataset, 0, 3) == train(dataset, 0, 3)
    assert {text.split()[0] for batch in train(dataset, 0, 9) for text in batch} == {"web"}


def test_a_source_without_a_text_leaves_its_part_to_the_others():
    fields = text_fields(
        {"a": ["", " "], "b": ["one", "two"], "c": ["three"]}, {"a": 0.5, "b": 0.3, "c": 0.2}
    )
    texts = fields["texts"]
    assert texts.texts == ["one", "two", "three"]
    assert texts.sources == ["b", "b", "c"]
    assert texts.probabilities == pytest.approx([0.3, 0.3, 0.4])
    assert (fields["text_input"], fields["text_source"]) == ("one", "b")
    assert text_fields({"a": [""]}, {"a": 1.0}) == {}


def test_probabilities_that_round_below_one_draw_the_last_text():
    class Highest:
        def random(self):
            return numpy.nextafter(1.0, 0)

    row = {"texts": Texts(["a", "b"], ["x", "y"], [0.5, 0.5 - 1e-9]), "text_input": "a"}
    assert draw_text(row, Highest()) == {"text_input": "b", "text_source": "y"}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({}, "no sources"),
        ({"web": 0.5, "synthetic": 0.6}, r"add up to 1\.1, not to 1; in these proportions"),
        ({"web": -0.5, "synthetic": 1.5}, r"texts\.web: a probability in \[0, 1\] .* not -0\.5"),
        ({"web": "half"}, r"texts\.web: a probability .* not 'half'"),
        ({"web": True}, "not True"),
        ({"web": float("nan")}, "not nan"),
        ({"web": 0}, "add up to 0, not to 1$"),
    ],
)
def test_what_are_no_probabilities_is_refused(shares, message):
    with pytest.raises(ConfigError, match=message):
        probabilities(shares, "json.texts")


def test_a_source_of_probability_zero_is_not_drawn():
    assert probabilities({"a": 0, "b": 1}, "x") == {"b": 1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_is_not_there_is_named_with_the_nearest(source, kind):
    wrong = {"json:syntetic": 1.0} if kind == "webdataset" else {"web": 0.5, "syntetic": 0.5}
    message = "Did you mean 'json:synthetic'" if kind == "webdataset" else "mean 'synthetic'"
    with pytest.raises(DataError, match=message):
        source(kind, texts=wrong)


@pytest.mark.parametrize("kind", ["json", "webdataset"])
def test_text_and_texts_together_are_refused(source, kind):
    with pytest.raises(ConfigError, match="say both where the texts are"):
        source(kind, texts=SHARES, text="web")


# ---- parts of captions

LONG = "A cat, black; it sleeps. It weighs 3.5 kilos! Is it old?  The sofa is red"


def test_a_sub_caption_is_some_sentences_in_their_order():
    draw = SubCaption(parts=2)
    found = {draw(LONG, generator("t", n)) for n in range(300)}
    sentences = ["a cat, black it sleeps", "it weighs 3 5 kilos", "is it old?", "the sofa is red"]
    pairs = [" ".join(pair) for pair in itertools.combinations(sentences, 2)]
    assert found == {*sentences, *pairs}


def test_clauses_end_at_commas_too():
    draw = SubCaption(by="clause")
    found = {draw(LONG, generator("t", n)) for n in range(300)}
    assert found == {
        "a cat,",
        "black",
        "it sleeps",
        "it weighs 3 5 kilos",
        "is it old?",
        "the sofa is red",
    }


def test_the_whole_caption_is_taken_now_and_then_and_without_a_generator():
    draw = SubCaption(whole=0.5, prompt="a picture: ")
    whole = BlipCaption("a picture: ")(LONG)
    assert draw(LONG) == whole
    share = numpy.mean([draw(LONG, generator("t", n)) == whole for n in range(400)])
    assert 0.4 < share < 0.6
    assert draw("one sentence only.", generator("t")) == "a picture: one sentence only"
    assert draw("", generator("t")) == "a picture: "


def test_parts_are_drawn_anew_each_turn_and_again_after_a_resume(source, tmp_path):
    rows = [{"image": f"{n}.png", "caption": LONG} for n in range(12)]
    source("json", texts=SHARES)
    (tmp_path / "long.json").write_text(json.dumps(rows))
    dataset = registry.build("dataset", {"name": "json", "path": str(tmp_path / "long.json")})
    processors = Processors(BlipImageTrain(image_size=8), SubCaption())
    whole = train(dataset, 0, 12, processors=processors)
    assert whole[:5] + train(dataset, 5, 12, processors=processors) == whole
    assert len({text for batch in whole for text in batch}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"), [({"parts": 0}, "parts"), ({"whole": 2}, "whole")]
)
def test_wrong_arguments_of_sub_caption_are_named(arguments, message):
    with pytest.raises(ConfigError, match=f"sub_caption.{message}"):
        SubCaption(**arguments)


def test_a_batch_has_several_texts_of_an_image_each_drawn_and_processed(source):
    dataset = source("json", texts=SHARES)
    found = {}
    for number in (1, 3):
        data = TrainData(
            [dataset],
            [None],
            PROCESSORS,
            batch_size=12,
            num_workers=0,
            seed=3,
            quarantine=Quarantine(),
            texts_per_image=number,
        )
        found[number] = next(data.batches())
    assert "text_inputs" not in found[1]
    # The first text, and the image's augmentation, are those that one text alone comes with.
    assert found[3]["text_input"] == found[1]["text_input"]
    assert (found[3]["image"] == found[1]["image"]).all()
    assert [row[0] for row in found[3]["text_inputs"]] == found[1]["text_input"]
    assert {len(row) for row in found[3]["text_inputs"]} == {3}
    for row in found[3]["text_inputs"]:
        assert len({text.split()[1] for text in row}) == 1  # of one image
    assert any(len(set(row)) > 1 for row in found[3]["text_inputs"])


def test_several_texts_of_a_caption_are_its_parts(source):
    long = Processors(BlipImageTrain(image_size=8), SubCaption())
    dataset = source("json", texts=SHARES)
    rows = [{**dataset[0], "texts": Texts(["one. two. three"], ["web"], [1.0])}]

    class Rows:
        name = "rows"

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return rows[index]

        def augment(self, row, rng):
            return draw_text(row, rng)

    data = TrainData(
        [Rows()],
        [None],
        long,
        batch_size=1,
        num_workers=0,
        seed=0,
        quarantine=Quarantine(),
        texts_per_image=12,
    )
    assert set(next(data.batches())["text_inputs"][0]) == {"one", "two", "three"}
