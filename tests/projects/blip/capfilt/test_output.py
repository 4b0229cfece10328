"""What a run leaves: a dataset to train on, tar shards, a page; and what it needs: no more memory
for more samples, no coordinator."""

from __future__ import annotations

import io
import json
import re
import tarfile

import numpy
from PIL import Image

from lavis_lite import registry
from lavis_lite.data.files.images import decode
from lavis_lite.data.loader import Processors, TrainData
from lavis_lite.data.quarantine import Quarantine


def bootstrapped(folder, **arguments):
    return registry.build("dataset", {"name": "bootstrapped", "path": str(folder), **arguments})


def test_the_output_is_a_dataset_of_the_kept_texts_with_their_images(capfilt, records):
    folder = capfilt()
    rows = bootstrapped(folder)
    source = registry.build("dataset", {"name": "toy_pairs"})
    expected = []
    for record in records(folder):
        expected += [(record["web_text"], record["index"])] * record["kept"]["web"]
        expected += [
            (text, record["index"])
            for text, kept in zip(record["synthetic"], record["kept"]["synthetic"], strict=True)
            if kept
        ]
    assert len(expected) == len(rows) > 10
    for row, (text, index) in zip((rows[n] for n in range(len(rows))), expected, strict=True):
        assert row["text_input"] == text
        assert row["image_id"] == f"pair-{index}"
        assert row["image"].tobytes() == source[index]["image"].tobytes()


def test_it_trains_in_a_mixture_with_clean_pairs(capfilt):
    clean = registry.build("dataset", {"name": "scenes", "split": "human", "size": 30})
    image = registry.build("processor", {"name": "blip_image_eval", "image_size": 4})
    text = registry.build("processor", {"name": "blip_caption"})
    data = TrainData(
        [bootstrapped(capfilt()), clean],
        [3.0, 1.0],
        Processors(image, text),
        batch_size=40,
        num_workers=0,
        seed=0,
        quarantine=Quarantine(),
    )
    keys = [key for batch in data.batches(stop=5) for key in batch["key"]]
    share = numpy.mean([key.startswith("pair-") for key in keys])
    assert 0.65 < share < 0.85


def test_tar_shards_hold_the_images_that_keep_a_text_and_read_as_webdataset(capfilt, records):
    folder = capfilt("out", "output.images=true")
    kept = [r for r in records(folder) if r["kept"]["web"] or any(r["kept"]["synthetic"])]
    rows = registry.build("dataset", {"name": "webdataset", "shards": str(folder / "shards")})
    assert len(rows) == len(kept) < 24
    for number, record in enumerate(kept):
        texts = {record["web_text"]: record["scores"]["web"]}
        texts |= dict(zip(record["synthetic"], record["scores"]["synthetic"], strict=True))
        assert texts[rows[number]["text_input"]] == max(texts.values())
        assert rows[number]["index"] == record["index"]
    with tarfile.open(folder / "shards" / "shard-000000.tar") as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == sorted(m.name for m in members)
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}


def test_images_travel_along_and_are_read_back_without_the_source(capfilt, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        Image.new("RGB", (9, 7), (40 * number, 0, 90)).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text(f"photo {'x' * number}")
    source = f"data.source={{name: folder, path: {photos}}}"
    folder = capfilt("out", source, "output.images=true", "filter=null")
    files = {file.name: file.read_bytes() for file in photos.iterdir()}
    for file in photos.glob("*.png"):
        file.unlink()
    rows = bootstrapped(folder, texts="web")
    assert len(rows) == 6
    for number in range(6):
        assert rows[number]["image"] == files[f"{number}.png"]
        assert decode(io.BytesIO(rows[number]["image"]).getvalue()).size == (9, 7)


def shown(page):
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_the_page_shows_rates_scores_pairs_and_what_was_set_aside(capfilt):
    source = "data.source={name: toy_pairs, broken: [1], size: 40}"
    folder = capfilt("out", source, "run.report=page.html", "data.label=kind")
    page = (folder / "page.html").read_text()
    stats = json.loads((folder / "stats.json").read_text())
    text = shown(page)
    for origin in ("web", "synthetic"):
        part = stats[origin]
        assert f"{100 * part['kept'] / part['texts']:.1f}" in text
    for title in ("What was kept", "Scores", "Replaced", "Close calls", "Kept together"):
        assert title in text
    assert "kept above 0.5" in text
    assert "Quarantine" in text
    assert "pair-1 (shard 0) truncated image" in text
    assert "kind0" in text
    for stage in ("read", "caption", "filter", "write"):
        assert f"{stage} " in text.partition("Throughput")[2]
    assert page.count("<svg") == 4  # texts by origin and by label, scores, time by stage
    for origin in ("web", "synthetic"):
        assert f"{origin} texts: kept {stats[origin]['kept']} (" in text
    assert len(set(re.findall(r'src="data:image/png;base64,([^"]+)"', page))) > 4
    assert "://" not in page  # it loads nothing


def test_the_page_shows_where_the_filter_contradicts_what_is_known(capfilt, records):
    known = ("data.label=kind", "data.right=[kind0]", "run.report=page.html")
    folder = capfilt("out", *known)
    page = (folder / "page.html").read_text()
    sections = dict(re.findall(r"<h2>(.*?)</h2>(.*?)</section>", page, re.DOTALL))
    found = records(folder)
    wrong = [r for r in found if r["kept"]["web"] and r["fields"]["kind"] == "kind1"]
    right = [r for r in found if not r["kept"]["web"] and r["fields"]["kind"] == "kind0"]
    for title, chosen, sign in (
        ("Wrong texts that were kept", wrong, -1),
        ("Right texts that were rejected", right, 1),
    ):
        first = min(chosen, key=lambda r: sign * r["scores"]["web"])
        cards = re.findall(r"<figure>(.*?)</figure>", sections[title], re.DOTALL)
        assert len(cards) == min(len(chosen), 8)
        text = shown(cards[0])
        assert first["web_text"] in text
        assert all(written in text for written in first["synthetic"])
        assert f"kind: {first['fields']['kind']}" in text
    assert page.count("<svg") == 6  # two histograms, the curve, and three divided bars
    truth = json.loads((folder / "stats.json").read_text())["truth"]
    assert f"of the web texts kept are right {100 * truth['precision']:.1f} %" in shown(page)


def test_a_hostile_text_is_shown_and_not_run(capfilt, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / "a.png")
    (photos / "a.txt").write_text("<script>alert(1)</script> \u2028 \x07 caf\u00e9")
    source = f"data.source={{name: folder, path: {photos}}}"
    folder = capfilt("out", source, "run.report=page.html")
    assert "<script" not in (folder / "page.html").read_text()
    (row,) = [bootstrapped(folder, texts="web")[0]]
    assert row["text_input"] == (photos / "a.txt").read_text().strip()


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_memory_does_not_grow_with_the_number_of_samples(capfilt, monkeypatch):
    from lavis_lite.projects.blip.capfilt import worker

    seen = []
    process_shard = worker.process_shard

    def watch(*arguments):
        found = process_shard(*arguments)
        seen.append(resident_bytes())
        return found

    monkeypatch.setattr(worker, "process_shard", watch)
    source = "data.source={name: toy_pairs, size: 6000, broken: [5, 1005, 2005]}"
    capfilt("out", source, "runner.shard_size=250", "data.batch_size=50")
    assert len(seen) == 24
    # After a warm-up; 4,000 samples later.
    assert seen[-1] - seen[7] < 4e6
