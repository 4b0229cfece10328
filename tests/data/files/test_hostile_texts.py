"""Texts as strangers write them, from the file to the tokens: read, cut or set aside, no crash."""

import csv
import json

import pytest
import torch
from PIL import Image

from lavis_lite import create_model, registry
from lavis_lite.data.image_processors import BlipImageEval
from lavis_lite.data.loader import EvalData, Processors, TrainData
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.data.text_processors import BlipCaption, BlipQuestion
from lavis_lite.modules.text.load_tokenizer import load_tokenizer

EMPTY = ["", "   ", "\n\t", "...!"]
HOSTILE = {
    "emoji": "a dog 🐕‍🦺 and 👨‍👩‍👧‍👦 run",
    "NUL": "a\x00cat\x00",
    "control characters": "\x1b[31mred\x07 \x08\x7f\x85 cat",
    "10 000 characters": "cat " * 2500,
    "10 000 without a space": "x" * 10_000,
    "10 000 signs": "!?" * 5000,
    "10 000 accents on a letter": "e" + "\u0301" * 10_000,
    "right to left": "\u202ecat\u202c שלום",
    "half a pair": "a \ud83d cat",
    "special tokens": "[SEP] [PAD] [DEC] <|endoftext|> ##ing",
    "byte order mark": "\ufeffa cat",
    "an emoji alone": "🙂",
}
PROCESSORS = Processors(BlipImageEval(image_size=4), BlipCaption(prompt="a picture of "))
MAX_LENGTH = 35


def write(folder, kind, texts):
    """An annotation file of one image with each of the texts; the dataset that reads it."""
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    path = folder / f"captions.{kind}"
    rows = [{"image": "a.png", "caption": text, "image_id": n} for n, text in enumerate(texts)]
    if kind == "csv":
        with path.open("w", newline="", errors="replace") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]")
    return registry.build("dataset", {"name": kind, "path": str(path)})


@pytest.mark.fault(18)
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_every_text_is_read_and_tokenized_within_the_limit(tmp_path, kind):
    quarantine, tokenizer = Quarantine(), load_tokenizer()
    dataset = write(tmp_path, kind, list(HOSTILE.values()))
    data = EvalData(dataset, PROCESSORS, batch_size=5, quarantine=quarantine)
    read = [text for batch in data.batches() for text in batch["text_input"]]
    assert quarantine.total == 0
    assert len(read) == len(HOSTILE)
    for name, text in zip(HOSTILE, read, strict=True):
        assert text.startswith("a picture of "), name
        assert len(text.split(" ")) <= 3 + 50, name
        text.encode()  # can be written to a file
        batch = tokenizer.encode([text], MAX_LENGTH)
        assert batch.ids.shape[1] <= MAX_LENGTH, name
        assert int(batch.ids.min()) >= 0, name
        assert int(batch.ids.max()) < len(tokenizer), name
        assert not set(batch.ids[0, 1:-1].tolist()) & tokenizer._special_ids - {tokenizer.unk_id}, (
            name
        )


@pytest.mark.fault(18)
def test_empty_captions_are_quarantined_in_training_and_the_rest_is_trained_on(tmp_path):
    dataset = write(tmp_path, "jsonl", [*EMPTY, *HOSTILE.values()])
    quarantine = Quarantine(str(tmp_path / "quarantine.jsonl"), max_bad_fraction=1)
    data = TrainData(
        [dataset], [None], PROCESSORS,
        batch_size=len(dataset), num_workers=0, seed=0, quarantine=quarantine,
    )  # fmt: skip
    (batch,) = data.batches(0, 1)
    assert len(batch["text_input"]) == len(dataset)  # replaced, not dropped
    assert quarantine.counts == {"empty text": len(EMPTY)}
    bad = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").open()]
    assert sorted(row["index"] for row in bad) == list(range(len(EMPTY)))
    assert not set(range(len(EMPTY))) & set(batch["index"])


@pytest.mark.fault(18)
def test_a_model_trains_on_them():
    model = create_model("blip_caption", "tiny")
    captions = [BlipCaption()(text) for text in ["", *HOSTILE.values()]]
    images = torch.zeros(len(captions), 3, 64, 64)
    assert model({"image": images, "text_input": captions}).loss.isfinite()


@pytest.mark.fault(18)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_text_of_the_users_own_goes_the_same_way(name):
    tokenizer = load_tokenizer()
    for text in (HOSTILE[name], BlipQuestion()(HOSTILE[name])):
        ids = tokenizer.encode([text], MAX_LENGTH).ids
        assert 2 <= ids.shape[1] <= MAX_LENGTH
        tokenizer.decode(ids[0])
