from collections import Counter

import numpy
import pytest

from lavis_lite import registry
from lavis_lite.data.scenes.captions import Scenes
from lavis_lite.errors import ConfigError, DataError
from tools.contact_sheet import contact_sheet


def shown(dataset):
    return {dataset.scene(index) for index in range(len(dataset))}


def test_rows_are_a_function_of_seed_and_index():
    one, again = Scenes("web", size=20), Scenes("web", size=20)
    for index in (0, 7, -1):
        row, same = one[index], again[index]
        assert numpy.array_equal(row.pop("image"), same.pop("image"))
        assert row == same
    other = Scenes("web", size=20, seed=1)
    assert [one.scene(i) for i in range(20)] != [other.scene(i) for i in range(20)]


def test_a_larger_size_only_appends():
    small, large = Scenes("web", size=30), Scenes("web", size=300)
    assert all(small.annotation(index) == large.annotation(index) for index in range(30))
    assert numpy.array_equal(small[3]["image"], large[3]["image"])


def test_default_sizes():
    assert [len(Scenes(split)) for split in ("human", "web", "test")] == [1000, 4000, 300]


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_no_scene_is_in_two_splits_whatever_the_seed(level):
    test = shown(Scenes("test", level=level))
    assert len(test) == 300
    for seed in (0, 1):
        human = shown(Scenes("human", level=level, seed=seed))
        web = shown(Scenes("web", size=2000, level=level, seed=seed))
        assert not test & human
        assert not test & web
        assert not human & web


def test_image_ids_and_keys_are_unique_over_splits():
    datasets = [Scenes("human", size=50), Scenes("web", size=50), Scenes("web", size=50, seed=1)]
    ids = [ds.annotation(index)["image_id"] for ds in datasets for index in range(50)]
    assert len(set(ids)) == 150


def test_web_noise_has_the_shares_and_the_meaning_of_its_label():
    web = Scenes("web")
    rows = [web.annotation(index) for index in range(len(web))]
    shares = Counter(row["noise"] for row in rows)
    expected = {"clean": 0.55, "mismatch": 0.20, "attribute": 0.10, "junk": 0.15}
    for kind, share in expected.items():
        assert shares[kind] / len(rows) == pytest.approx(share, abs=0.025)
    for index, row in enumerate(rows[:600]):
        truth, said = web.scene(index).facts(), web.facts(row["text_input"])
        assert web.facts(row["clean_text"]) == truth
        if row["noise"] == "clean":
            assert row["text_input"] == row["clean_text"]
        elif row["noise"] == "attribute":
            assert 1 <= len(truth - said) <= 2
        elif row["noise"] == "mismatch":
            assert said not in (None, truth)
        else:
            assert said is None


def test_another_noise_rate_changes_neither_pictures_nor_true_captions():
    default, noisy = Scenes("web", size=200), Scenes("web", size=200, noise=0.9)
    counts = Counter(noisy.annotation(index)["noise"] for index in range(200))
    assert counts["clean"] == pytest.approx(20, abs=15)
    assert numpy.array_equal(default[5]["image"], noisy[5]["image"])
    assert default.annotation(5)["clean_text"] == noisy.annotation(5)["clean_text"]


@pytest.mark.parametrize("split", ["human", "test"])
def test_human_and_test_captions_are_clean(split):
    dataset = Scenes(split, size=100)
    assert {dataset.annotation(index)["noise"] for index in range(100)} == {"clean"}


def test_noise_can_be_chosen_by_its_label():
    clean = Scenes("web", size=200, where={"noise": ["clean", "junk"]}, limit=40)
    assert len(clean) == 40
    assert {clean[index]["noise"] for index in range(40)} == {"clean", "junk"}


def test_folds_are_disjoint_and_complete():
    parts = [Scenes("web", size=100, fold={"of": 3, "take": part}) for part in range(3)]
    keys = [row["key"] for part in parts for row in part]
    assert len(keys) == len(set(keys)) == 100
    assert all(len(part) > 15 for part in parts)


@pytest.mark.parametrize("image_size", [32, 64, 160])
def test_pictures_show_their_scene_at_any_size(image_size):
    dataset = Scenes("test", image_size=image_size, where=None)
    row = dataset[0]
    scene = dataset.scene(0)
    pixels = numpy.asarray(row["image"]).astype(int)
    assert pixels.shape == (image_size, image_size, 3)
    from lavis_lite.data.scenes.drawing import BACKGROUNDS, COLOURS

    assert abs(numpy.median(pixels, (0, 1)) - BACKGROUNDS[scene.background]).max() < 12
    distance = abs(pixels - numpy.array(COLOURS[scene.things[0].colour])).max(-1)
    assert (distance < 45).mean() > 0.015


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "tset"}, "no split 'tset'. Did you mean 'test'"),
        ({"level": "eazy"}, "Did you mean 'easy'"),
        ({"noise": 1.5}, "noise: 1.5; from 0 to 1"),
        ({"size": 0}, "size: 0; at least 1"),
        ({"image_size": 3}, "image_size: 3; at least 16"),
        ({"limit": 0}, "limit: 0; at least 1"),
        ({"fold": {"off": 2}}, "fold.off: unknown key. Did you mean 'of'"),
        ({"fold": {"of": 2, "take": [2]}}, "some of 0 ... of - 1"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        Scenes(**arguments)


def test_a_choice_that_leaves_nothing_says_which_values_there_are():
    with pytest.raises(DataError, match=r"leave none of 50 rows.*'clean': "):
        Scenes("web", size=50, where={"noise": "klean"})
    with pytest.raises(DataError, match=r"no row has a field 'nose'\. Did you mean 'noise'"):
        Scenes("web", size=50, where={"nose": "clean"})


def test_contact_sheet_is_a_picture_of_the_rows(tmp_path):
    from PIL import Image

    contact_sheet(Scenes("web", size=5), range(5), str(tmp_path / "sheet.png"), columns=3)
    sheet = numpy.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[1] > 3 * 200
    assert (sheet[:200, 100:200] < 100).mean() > 0.3  # a dark picture on white paper
    assert (sheet[-10:] == 255).all()


def test_scenes_are_built_from_a_config():
    dataset = registry.build("dataset", {"name": "scenes", "split": "human", "size": 3})
    assert len(dataset) == 3
    assert dataset.facts(dataset[0]["text_input"]) is not None
