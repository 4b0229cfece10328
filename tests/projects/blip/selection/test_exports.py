"""A selection in the formats of other tools, each read back by the tool that it is for."""

from __future__ import annotations

import io
import json
import tarfile

import numpy
import pytest
from PIL import Image

from lavis_lite import registry
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.projects.blip.selection.exports import Options, export
from lavis_lite.projects.blip.selection.reading import Selection

pytest.importorskip("pyarrow")
RULES = [{"score": "itm", "min": 0.4}]


@pytest.fixture
def selection(select):
    return select(RULES, "chosen", keep={"best": 2, "by": "clip"})


def by_image(selection):
    """(shard, index) -> rows."""
    found = {}
    for row in Selection(selection).rows():
        found.setdefault((row["shard"], row["index"]), []).append(row)
    return found


def best(rows):
    return max(rows, key=lambda row: row["score_clip"])["text"]


def test_bootstrapped_reads_a_selection_without_an_image_copied(selection, some):
    rows = registry.build("dataset", {"name": "bootstrapped", "path": str(selection)})
    expected = [row["text"] for row in Selection(selection).rows()]
    assert [rows[n]["text_input"] for n in range(len(rows))] == expected
    source = registry.build("dataset", {"name": "scenes", "split": "web", "size": 90})
    first = next(Selection(selection).rows())
    assert rows[0]["image"].tobytes() == source[first["index"]]["image"].tobytes()
    assert [p for p in selection.rglob("*") if p.suffix in (".png", ".jpg", ".tar")] == []
    with pytest.raises(ConfigError, match="has only texts that are kept"):
        registry.build("dataset", {"name": "bootstrapped", "path": str(selection), "texts": "all"})


def test_parquet_has_a_row_for_each_text_with_its_fields(selection, tmp_path):
    pandas = pytest.importorskip("pandas")
    number = export(selection, "parquet", tmp_path / "t.parquet", Options())
    frame = pandas.read_parquet(tmp_path / "t.parquet")
    rows = list(Selection(selection).rows())
    assert number == len(frame) == len(rows)
    assert frame["text"].tolist() == [row["text"] for row in rows]
    assert frame["score_clip"].tolist() == [row["score_clip"] for row in rows]
    assert json.loads(frame["fields"][0])["kind"] == f"kind{rows[0]['index'] % 3}"


def test_recaps_columns_have_both_captions_of_an_image(selection, tmp_path, some):
    polars = pytest.importorskip("polars")
    export(selection, "recap", tmp_path / "r.parquet", Options())
    frame = polars.read_parquet(tmp_path / "r.parquet")
    assert frame.columns[:5] == ["url", "key", "sha256", "org_caption", "re_caption"]
    assert {"org_clip_score", "re_clip_score"} <= set(frame.columns)
    images = by_image(selection)
    assert frame["key"].to_list() == [rows[0]["key"] for rows in images.values()]
    for row, ((_, index), rows) in zip(frame.iter_rows(named=True), images.items(), strict=True):
        assert row["org_caption"] == some[index]["web_text"]
        assert row["org_clip_score"] == some[index]["text_scores"]["clip"]["web"]
        written = [own for own in rows if own["place"]]
        assert row["re_caption"] == (best(written) if written else None)


def test_webdataset_reads_the_shards_with_captions_as_strings(selection, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    target = tmp_path / "shards"
    number = export(selection, "webdataset", target, Options(shard_size=25))
    images = list(by_image(selection).values())
    assert number == len(images)
    tars = sorted(str(path) for path in target.glob("*.tar"))
    sizes = json.loads((target / "sizes.json").read_text())
    assert len(tars) == -(-number // 25)
    assert max(sizes.values()) - min(sizes.values()) <= 1
    read = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert [one["__key__"] for one in read][:2] == ["000000000", "000000001"]
    for sample, rows in zip(read, images, strict=True):
        about = json.loads(sample["json"])
        assert sample["txt"].decode() == best(rows) == about["caption_best"] == about["caption"]
        texts = {name: v for name, v in about.items() if name.startswith("caption_")}
        assert all(isinstance(value, str) for value in texts.values())
        web = [row["text"] for row in rows if row["place"] == 0]
        assert texts.get("caption_web") == (web[0] if web else None)
        for source in ("blip", "other"):
            own = [row["text"] for row in rows if row["source"] == source]
            assert texts.get(f"caption_{source}_0") == (own[0] if own else None)
    stats = json.loads((target / "00000_stats.json").read_text())
    assert stats["successes"] == sizes["00000.tar"]


def test_shards_are_a_dataset_of_ours_with_the_same_pixels(selection, tmp_path):
    export(selection, "webdataset", tmp_path / "shards", Options())
    rows = registry.build(
        "dataset", {"name": "webdataset", "shards": str(tmp_path / "shards" / "*.tar")}
    )
    before = registry.build("dataset", {"name": "bootstrapped", "path": str(selection)})
    image = Image.open(io.BytesIO(rows[0]["image"]))
    assert image.tobytes() == before[0]["image"].tobytes()


def test_the_same_selection_gives_the_same_shards(selection, tmp_path):
    for name in ("a", "b"):
        export(selection, "webdataset", tmp_path / name, Options())
        export(selection, "huggingface", tmp_path / f"h{name}", Options())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    for path in (tmp_path / "ha").rglob("*.parquet"):
        other = tmp_path / "hb" / path.relative_to(tmp_path / "ha")
        assert path.read_bytes() == other.read_bytes()


def test_datasets_loads_the_folder_offline_with_images_and_a_card(selection, tmp_path):
    datasets = pytest.importorskip("datasets")
    target = tmp_path / "hf"
    number = export(selection, "huggingface", target, Options(shard_size=30, license="cc-by-4.0"))
    data = datasets.load_dataset(str(target), split="train", cache_dir=str(tmp_path / "cache"))
    images = list(by_image(selection).values())
    assert len(data) == number == len(images)
    assert isinstance(data.features["image"], datasets.Image)
    assert data["text"][:] == [best(rows) for rows in images]
    assert data["texts"][:] == [[row["text"] for row in rows] for rows in images]
    assert data[0]["scores"]["clip"] == max(row["score_clip"] for row in images[0])
    before = registry.build("dataset", {"name": "bootstrapped", "path": str(selection)})
    assert data[0]["image"].tobytes() == before[0]["image"].tobytes()
    card = (target / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "itm ≥ 0.4" in card
    assert Selection(selection).manifest["fingerprint"] in card


def test_keys_are_lines(selection, tmp_path):
    export(selection, "keys", tmp_path / "keys.txt", Options())
    keys = [rows[0]["key"] for rows in by_image(selection).values()]
    assert (tmp_path / "keys.txt").read_text().splitlines() == keys


def test_uids_are_sorted_halves_as_datacomp_reads_them(select, some, write, tmp_path):
    rng = numpy.random.default_rng(0)
    uids = [rng.bytes(16).hex() for _ in some]
    for record, uid in zip(some, uids, strict=True):
        record["fields"]["uid"] = uid
    other = write(tmp_path / "uids", some)
    folder = select(RULES, "u", **{"data.records": str(other)})
    export(folder, "datacomp", tmp_path / "uids.npy", Options())
    found = numpy.load(tmp_path / "uids.npy")
    assert found.dtype == numpy.dtype("u8,u8")
    said = [f"{high:016x}{low:016x}" for high, low in found.tolist()]
    assert said == sorted(uids[index] for _, index in by_image(folder))


def test_rows_without_a_uid_are_refused_and_leave_nothing(selection, tmp_path):
    with pytest.raises(DataError, match="its `uid` is None"):
        export(selection, "datacomp", tmp_path / "uids.npy", Options())
    assert list(tmp_path.glob("uids*")) == []


@pytest.fixture
def photos(select, some, write, tmp_path):
    """A selection of images that are files."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for record in some:
        record["image"] = str(folder / f"{record['key']}.jpg")
        Image.new("RGB", (4, 4)).save(record["image"])
    other = write(tmp_path / "of_files", some)
    best_of = {"best": 1, "by": "clip"}
    return select(RULES, "p", **{"data.records": str(other)}, keep=best_of), folder


def test_sidecars_lie_beside_the_images(photos):
    selection, folder = photos
    options = Options(prefix="photo: ", suffix=".")
    number = export(selection, "sidecar", folder, options)
    rows = list(Selection(selection).rows())
    assert number == len(rows) == len(list(folder.glob("*.txt")))
    for row in rows:
        assert (folder / f"{row['key']}.txt").read_text() == f"photo: {row['text']}.\n"


def test_sidecars_that_are_there_are_kept_unless_one_says_otherwise(photos):
    selection, folder = photos
    row = next(Selection(selection).rows())
    path = folder / f"{row['key']}.txt"
    path.write_text("by hand\n")
    with pytest.raises(ConfigError, match="--existing skip, overwrite or append"):
        export(selection, "sidecar", folder, Options())
    assert len(list(folder.glob("*.txt"))) == 1
    number = export(selection, "sidecar", folder, Options(existing="skip"))
    assert path.read_text() == "by hand\n"
    assert number == len(Selection(selection)) - 1
    export(selection, "sidecar", folder, Options(existing="append"))
    assert path.read_text() == f"by hand\n{row['text']}\n"
    export(selection, "sidecar", folder, Options(existing="overwrite"))
    assert path.read_text() == f"{row['text']}\n"


def test_sidecars_need_images_that_are_files_of_the_folder(selection, photos, tmp_path):
    with pytest.raises(DataError, match="its image is no file"):
        export(selection, "sidecar", tmp_path, Options())
    with pytest.raises(DataError, match="name the folder that the images lie in"):
        export(photos[0], "sidecar", tmp_path / "elsewhere", Options())


@pytest.mark.parametrize("kind", ["parquet", "webdataset", "huggingface", "keys"])
def test_what_is_there_is_overwritten_only_if_one_says_so(selection, tmp_path, kind):
    target = tmp_path / "target"
    if kind in ("webdataset", "huggingface"):
        target.mkdir()
        (target / "mine").write_text("mine")
    else:
        target.write_text("mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        export(selection, kind, target, Options())
    assert "mine" in (target / "mine" if target.is_dir() else target).read_text()
    export(selection, kind, target, Options(overwrite=True))
    assert not (target / "mine").exists()
    assert [p.name for p in tmp_path.glob("target*")] == ["target"]


def test_images_that_cannot_be_read_are_left_out_and_counted(photos, tmp_path):
    selection, folder = photos
    (folder / f"{next(Selection(selection).rows())['key']}.jpg").write_bytes(b"no image")
    number = export(selection, "webdataset", tmp_path / "shards", Options())
    assert number == len(Selection(selection)) - 1
    stats = json.loads((tmp_path / "shards" / "00000_stats.json").read_text())
    assert stats["failed_to_download"] == 1
    with tarfile.open(tmp_path / "shards" / "00000.tar") as tar:
        assert len(tar.getnames()) == 3 * number


def test_an_unknown_format_names_the_nearest(selection, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'webdataset'"):
        export(selection, "webdatset", tmp_path / "x", Options())
