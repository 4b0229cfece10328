import numpy
import pytest

from lavis_lite.data.scenes import world
from lavis_lite.data.scenes.language import describe, facts, junk
from lavis_lite.data.scenes.world import LEVELS, Scene, Thing, with_error


@pytest.mark.parametrize("level", LEVELS)
def test_every_sentence_is_read_back_to_the_facts_of_its_scene(level):
    rng = numpy.random.default_rng(0)
    for _ in range(400):
        scene = LEVELS[level].scene(int(rng.integers(LEVELS[level].num_scenes)))
        assert facts(describe(scene, rng)) == scene.facts()


def test_easy_scenes_have_eight_facts_and_there_are_18432_of_them():
    scenes = [LEVELS["easy"].scene(number) for number in range(LEVELS["easy"].num_scenes)]
    assert len(set(scenes)) == 18432
    assert {len(scene.facts()) for scene in scenes[::100]} == {8}


def test_hard_scenes_have_twelve_facts():
    assert len(LEVELS["hard"].scene(123456).facts()) == 12


def test_facts_of_a_known_sentence():
    text = "A picture of a huge violet disc to the left of a tiny red plus, on a gray background."
    assert facts(text) == {
        *("first.size=large", "first.colour=purple", "first.shape=circle"),
        *("second.size=small", "second.colour=red", "second.shape=cross"),
        *("relation=left", "background=grey"),
    }


def test_an_inverted_sentence_states_the_same_facts():
    assert facts("a red box is right of a big circle") == facts("a big circle is left of a red box")
    assert facts("a box under a cross") == facts("a cross over a box")


def test_an_incomplete_sentence_states_fewer_facts():
    assert facts("a red circle on navy") == {
        *("first.colour=red", "first.shape=circle", "background=navy")
    }
    assert "second.shape=circle" not in facts("a big red is left of a big purple on grey")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "of the a",
        "IMG_2041.jpg",
        "buy a red circle online",
        "a red circle on grey on black",
        "left of above",
        "a red circle is left of",
        "a box a box a box a box",
        "красный круг \x00 🙂",
    ],
)
def test_junk_and_contradictions_state_nothing(text):
    assert facts(text) is None


def test_no_junk_of_ours_can_be_read():
    rng = numpy.random.default_rng(0)
    texts = {junk(rng) for _ in range(500)}
    assert len(texts) > 100
    assert all(facts(text) is None for text in texts)


@pytest.mark.parametrize("level", LEVELS)
def test_an_error_changes_one_or_two_facts(level):
    rng = numpy.random.default_rng(0)
    for number in range(0, 18000, 60):
        scene = LEVELS[level].scene(number)
        wrong = with_error(scene, LEVELS[level], rng)
        changed = scene.facts() - wrong.facts()
        # The third thing's relation is worded by the first two's: it may change along with it.
        assert 1 <= len(changed) <= 3
        assert len(wrong.facts()) == len(scene.facts())


def test_hard_errors_include_things_mixed_up_with_every_word_true_of_something():
    things = (
        Thing("small", "red", "circle"),
        Thing("large", "blue", "square"),
        Thing("small", "pink", "cross"),
    )
    scene = Scene(things, "left", "grey", "after")
    rng = numpy.random.default_rng(0)

    def words(one):
        return sorted(value for thing in one.things for value in vars(thing).values())

    wrong = [with_error(scene, LEVELS["hard"], rng) for _ in range(100)]
    mixed_up = [one for one in wrong if words(one) == words(scene) and one.things != things]
    assert 20 < len(mixed_up) < 80


def test_words_of_things_and_backgrounds_are_distinct():
    kinds = (world.SIZES, world.COLOURS, world.SHAPES, world.BACKGROUNDS)
    words = [word for kind in kinds for spellings in kind.values() for word in spellings]
    assert len(words) == len(set(words))
