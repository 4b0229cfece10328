"""The page about one's own data: what it shows runs as written, offline; img2dataset's shards."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import shlex
import tarfile
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from lavis_lite import cli, registry

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs/bootstrap_your_data.rst").read_text(encoding="utf-8")


def file_of_the_page(name):
    """The code block with this caption."""
    (body,) = re.findall(rf":caption: {re.escape(name)}\n\n((?:   .*\n|\n)+)", PAGE)
    return textwrap.dedent(body)


def command_of_the_page(start):
    """The words of the first command that begins like this, after ``run.py``."""
    line = next(one for one in PAGE.splitlines() if one.strip().startswith(f"$ {start}"))
    words = shlex.split(line.strip())
    return words[words.index("run.py") + 1 :]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder beside a checkout's configs, without a network."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    return tmp_path


def test_a_folder_of_ones_own_goes_through_with_one_command_and_is_trained_on(workplace, capsys):
    for name in ("make_photos.py", "look.py", "my_second_model.yaml"):
        (workplace / name).write_text(file_of_the_page(name))
    runpy.run_path("make_photos.py")
    (workplace / "photos" / "3.txt").unlink()  # an image without a text
    (workplace / "photos" / "broken.jpg").write_bytes(b"<html>")
    run = command_of_the_page("python run.py --cfg configs/blip/capfilt_folder.yaml")
    assert cli.main(["run", *run]) == 0
    folder = workplace / "output" / "capfilt_folder"
    stats = json.loads((folder / "stats.json").read_text())
    assert (stats["read"], stats["images"], stats["web"]["empty"]) == (7, 6, 1)
    assert stats["unreadable"] == {"not an image": 1}
    assert "<h2>What was kept</h2>" in (folder / "capfilt_report.html").read_text()
    capsys.readouterr()
    runpy.run_path("look.py")
    kept = capsys.readouterr().out.splitlines()
    assert len(kept) == stats["web"]["kept"] + stats["synthetic"]["kept"] >= 6
    assert cli.main(["run", *command_of_the_page("python run.py --cfg my_second_model.yaml")]) == 0
    done = json.loads((workplace / "output/my_second_model/complete.json").read_text())
    assert done["step"] == 2


def test_everything_that_the_page_says_about_options_is_understood(workplace):
    from lavis_lite import config as configs

    options = re.findall(r'^``"?((?:captioner|filter)[^`"]*)"?``  ', PAGE, re.MULTILINE)
    assert len(options) == 9
    for option in options:
        overrides = option.replace("DIR", "somewhere").split(" filter.")
        overrides = [overrides[0], *(f"filter.{rest}" for rest in overrides[1:])]
        config = configs.load_and_bind("blip/capfilt_web", overrides)
        registry.build("runner", config.runner.spec, config=config)  # checks how values fit


def jpeg(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def img2dataset_shard(folder, shard, size):
    """A shard with the names and fields that img2dataset writes, in the order of arrival."""
    name = f"{shard:05d}"
    order = [(7 * n) % size for n in range(size)]
    with tarfile.open(folder / f"{name}.tar", "w") as tar:
        for number in order:
            key = f"{shard:05d}{number:04d}"
            caption = None if number == 2 else f"photo {'x' * number}"
            fields = {
                "caption": caption, "url": f"https://images.example/{key}.jpg", "key": key,
                "status": "success", "error_message": None, "width": 64, "height": 48,
                "original_width": 640, "original_height": 480, "exif": "{}", "sha256": "0" * 64,
            }  # fmt: skip
            members = {"jpg": jpeg((20 * number, 0, 99)), "json": json.dumps(fields).encode()}
            if caption is not None:
                members["txt"] = caption.encode()
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    (folder / f"{name}.parquet").write_bytes(b"PAR1 no tar")
    (folder / f"{name}_stats.json").write_text(json.dumps({"count": size, "successes": size}))
    return folder / f"{name}.tar"


def test_shards_of_img2dataset_are_bootstrapped_as_they_are(capfilt, records, tmp_path):
    web = tmp_path / "cc3m"
    web.mkdir()
    img2dataset_shard(web, 0, 6)
    interrupted = img2dataset_shard(web, 1, 6)
    (web / "00001_stats.json").unlink()
    interrupted.write_bytes(interrupted.read_bytes()[:-14000])
    source = f"data.source={{name: webdataset, shards: '{web}/*.tar', cache: {tmp_path}/index}}"
    folder = capfilt("out", source, "data.without_text=caption", "output.images=true")
    found = {r["key"]: r for r in records(folder)}
    first = [f"00000/00000{number:04d}" for number in range(6)]
    assert set(first) < found.keys()
    assert 0 < len(found.keys() - set(first)) < 6
    assert found["00000/000000003"]["web_text"] == "photo xxx"
    assert found["00000/000000002"]["reason"]["web"] == "empty text"
    fields = found["00000/000000003"]["fields"]
    assert fields["url"] == "https://images.example/000000003.jpg"
    assert (fields["original_width"], fields["status"]) == (640, "success")
    problems = json.loads((folder / "stats.json").read_text())["problems"]
    assert len(problems) == 1
    assert "00001.tar" in problems[0]
    assert "the shard was cut" in problems[0]
    pairs = registry.build("dataset", {"name": "bootstrapped", "path": str(folder)})
    assert pairs[0]["url"].startswith("https://images.example/")
    assert pairs[0]["image"][:2] == b"\xff\xd8"  # the file as it was downloaded
