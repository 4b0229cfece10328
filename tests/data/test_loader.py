import io
import multiprocessing
import os
import signal

import numpy
import pytest
import torch
from PIL import Image

from lavis_lite.data.image_processors import BlipImageEval, BlipImageTrain
from lavis_lite.data.loader import EvalData, Processors, TrainData
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.data.text_processors import BlipCaption
from lavis_lite.errors import DataError


class Photos:
    """Small pictures, some of them broken files."""

    def __init__(self, size=40, bad=(), name="photos"):
        self.size, self.bad, self.name = size, set(bad), name

    def __len__(self):
        return self.size

    def annotation(self, index):
        return {"text_input": f"Number {index}.", "image_id": index, "key": f"{self.name}-{index}"}

    def __getitem__(self, index):
        pixels = numpy.random.default_rng(index).integers(0, 256, (12, 12, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.astype(numpy.uint8)).save(file, "PNG")
        data = file.getvalue()[: -60 if index in self.bad else None]
        return {"image": data, **self.annotation(index)}


TRAIN = Processors(BlipImageTrain(image_size=8), BlipCaption())
EVAL = Processors(BlipImageEval(image_size=8), BlipCaption(prompt="a picture of "))


def train_data(datasets=None, weights=None, *, quarantine=None, **settings):
    datasets = datasets or [Photos()]
    settings = {"batch_size": 6, "num_workers": 0, "seed": 0, **settings}
    return TrainData(
        datasets,
        weights or [None] * len(datasets),
        TRAIN,
        quarantine=quarantine or Quarantine(max_bad_fraction=1),
        **settings,
    )


def assert_same(batches, others):
    batches, others = list(batches), list(others)
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        assert batch["key"] == other["key"]
        assert torch.equal(batch["image"], other["image"])
        assert torch.equal(batch["image_id"], other["image_id"])


def test_a_batch_has_the_promised_fields():
    batch = next(iter(train_data().batches(0, 1)))
    assert batch["image"].shape == (6, 3, 8, 8)
    assert batch["image"].dtype == torch.float32
    assert batch["image_id"].dtype == torch.int64
    assert batch["text_input"] == [f"number {index}" for index in batch["index"]]
    assert batch["key"] == [f"photos-{index}" for index in batch["index"]]


def test_an_epoch_is_every_row_once_across_batches_and_epochs():
    keys = [key for batch in train_data().batches(0, 20) for key in batch["key"]]
    assert train_data().samples_per_epoch == 40
    for epoch in range(3):
        assert len(set(keys[40 * epoch : 40 * epoch + 40])) == 40
    assert keys[:40] != keys[40:80]


def test_without_a_stop_the_stream_is_endless():
    batches = train_data(batch_size=30).batches()
    assert [len(next(batches)["key"]) for _ in range(10)] == [30] * 10


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(num_workers):
    bad = [Photos(bad=(3, 17))]
    expected = train_data(bad).batches(0, 10)
    assert_same(train_data(bad, num_workers=num_workers).batches(0, 10), expected)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("start", [1, 6, 7, 13])
def test_resuming_at_any_batch_changes_nothing(start, num_workers):
    expected = list(train_data().batches(0, 16))[start:]
    assert_same(train_data(num_workers=num_workers).batches(start, 16), expected)


@pytest.mark.parametrize("weights", [[None, None], [3, 1]])
def test_processes_joined_read_what_one_would(weights):
    datasets = [Photos(30), Photos(20, bad=(4,), name="others")]
    whole = train_data(datasets, weights, batch_size=8).batches(0, 12)
    ranks = [
        train_data(datasets, weights, batch_size=4, rank=rank, world_size=2).batches(0, 12)
        for rank in (0, 1)
    ]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert batch["key"] == parts[0]["key"] + parts[1]["key"]
        assert torch.equal(batch["image"], torch.cat([part["image"] for part in parts]))


def test_augmentation_differs_between_epochs():
    one, two = (next(train_data([Photos(6)]).batches(k)) for k in (0, 1))
    order = [two["key"].index(key) for key in one["key"]]
    assert not torch.equal(one["image"], two["image"][order])


def test_reading_leaves_the_global_generators_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state(), numpy.random.get_state()[1].copy()
    for num_workers in (0, 1):
        list(train_data(num_workers=num_workers).batches(0, 3))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (numpy.random.get_state()[1] == before[1]).all()


def test_numbers_of_different_datasets_are_different_images():
    datasets = [Photos(10), Photos(10, name="others")]
    ids = {int(i) for batch in train_data(datasets, batch_size=20).batches(0, 1)
           for i in batch["image_id"]}  # fmt: skip
    assert len(ids) == 20


@pytest.mark.fault(19)
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("share", [0.01, 0.05])
def test_bad_images_are_replaced_and_recorded_once(tmp_path, share, num_workers):
    bad = set(numpy.random.default_rng(0).permutation(200)[: int(200 * share)].tolist())
    quarantine = Quarantine(str(tmp_path / "quarantine.jsonl"), max_bad_fraction=0.1)
    data = train_data(
        [Photos(200, bad)], batch_size=20, num_workers=num_workers, quarantine=quarantine
    )
    batches = list(data.batches(0, 30))  # three epochs
    assert all(len(batch["key"]) == 20 for batch in batches)
    assert not bad & {index for batch in batches for index in batch["index"]}
    assert quarantine.counts == {"truncated image": len(bad)}
    lines = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert len(lines) == len(bad)
    assert '"key": "photos-' in lines[0]


@pytest.mark.fault(19)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_many_bad_images_stop_with_the_counts(num_workers):
    data = train_data(
        [Photos(100, range(30))],
        num_workers=num_workers,
        quarantine=Quarantine(max_bad_fraction=0.1),
    )
    with pytest.raises(DataError, match=r"samples could not be read.*truncated image \d+"):
        list(data.batches(0, 40))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_dataset_of_nothing_but_bad_images_is_a_data_error(num_workers):
    data = train_data([Photos(9, range(9))], num_workers=num_workers)
    with pytest.raises(DataError, match=r"^photos: none of 9 rows.*truncated image \(9 times\)"):
        list(data.batches(0, 1))


def test_rows_without_text_are_quarantined_in_training_and_kept_in_evaluation():
    class Silent(Photos):
        def annotation(self, index):
            return {**super().annotation(index), "text_input": " ..." if index == 2 else "a b"}

    quarantine = Quarantine(max_bad_fraction=1)
    with_prompt = Processors(TRAIN.image, BlipCaption(prompt="a picture of "))
    data = TrainData(
        [Silent(5)], [None], with_prompt, batch_size=5, num_workers=0, seed=0, quarantine=quarantine
    )
    assert 2 not in next(data.batches())["index"]
    assert quarantine.counts == {"empty text": 1}
    assert next(EvalData(Silent(5), EVAL, batch_size=5).batches())["index"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_reads_each_row_once_in_order(num_workers):
    quarantine = Quarantine()
    data = EvalData(
        Photos(23, bad=(4, 22)),
        EVAL,
        batch_size=5,
        num_workers=num_workers,
        quarantine=quarantine,
    )
    batches = list(data.batches())
    assert [i for batch in batches for i in batch["index"]] == [i for i in range(22) if i != 4]
    assert batches[0]["text_input"][0] == "a picture of number 0"
    assert quarantine.total == 2
    assert [batch["index"] for batch in data.batches([7, 3, 4, 9])] == [[7, 3, 9]]
    assert list(data.batches([])) == []
    assert list(data.batches([4, 22])) == []


def test_an_error_in_a_processor_is_raised_and_says_where():
    class Broken:
        def __call__(self, image, rng=None):
            raise ZeroDivisionError("my mistake")

    data = EvalData(Photos(3), Processors(Broken(), BlipCaption()), batch_size=2)
    with pytest.raises(ZeroDivisionError, match="my mistake") as caught:
        list(data.batches())
    assert caught.value.__notes__ == ["while processing photos[0]"]


def test_a_dead_worker_is_a_data_error_of_the_next_batch_and_of_nothing_else():
    batches = train_data(num_workers=1).batches()
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    # torch would raise here, in the middle of whatever the program does.
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(DataError, match="a data worker died"):
        list(batches)
    assert not multiprocessing.active_children()


@pytest.mark.fault(15)
def test_workers_outlive_a_signal_to_the_whole_job():
    class Interrupted(Photos):
        def __getitem__(self, index):
            if index == 3:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(index)

    batches = list(EvalData(Interrupted(20), EVAL, batch_size=2, num_workers=1).batches())
    assert sum(len(batch["key"]) for batch in batches) == 20


def test_leaving_a_stream_ends_its_workers():
    batches = train_data(num_workers=2).batches()
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert not multiprocessing.active_children()
