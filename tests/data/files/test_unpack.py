"""Archives of strangers: unpacked whole into their folder, or refused and nothing left."""

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import zipfile

import pytest

from lavis_lite.cli import main
from lavis_lite.data.files import compressed
from lavis_lite.data.files.tables import read
from lavis_lite.data.files.unpack import unpack
from lavis_lite.errors import DataError

FILES = {"train/a.jpg": b"a" * 3000, "train/deep/b.jpg": b"", "c.txt": b"caption"}
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def write_tar(path, files=FILES, extra=()):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    path.write_bytes(PACKERS[path.suffix if path.suffix != ".tar" else ""](file.getvalue()))
    return path


def write_zip(path, files=FILES, extra=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for info, data in extra:
            archive.writestr(info, data)
    return path


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


AT_THE_END = """
import os, signal, sys
from lavis_lite.data.files import unpack

def publish(*given):
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print("nearly there", flush=True)
    sys.stdin.readline()
    return really(*given)

really, unpack._publish = unpack._publish, publish
unpack.unpack(sys.argv[1], sys.argv[2])
"""


def unpacking(archive, folder, fate):
    """A process that is killed just before its files get their names, or waits there for a line."""
    command = [sys.executable, "-c", AT_THE_END, archive, folder, fate]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_what_a_killed_process_left_is_removed_and_a_living_one_keeps_its_own(tmp_path):
    target = tmp_path / "out"
    with unpacking(write_tar(tmp_path / "a.tar"), target, "killed") as killed:
        killed.wait(60)
    assert killed.returncode < 0
    (left,) = target.iterdir()
    assert left.name.startswith(".unpacking-")
    assert contents(left) == FILES
    beside = write_zip(tmp_path / "b.zip", {"d.txt": b"beside"})
    with unpacking(beside, target, "waits") as living:
        assert living.stdout.readline() == "nearly there\n"
        assert not left.exists()  # the second removed what the first had left
        (own,) = target.iterdir()
        unpack(tmp_path / "a.tar", target)
        assert own.is_dir()
        living.communicate("go on\n", timeout=60)
    assert living.returncode == 0
    assert contents(target) == {**FILES, "d.txt": b"beside"}
    assert not list(target.glob(".*"))


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_without_locks_it_unpacks_and_removes_nothing(tmp_path, monkeypatch):
    def no_locks(handle, how):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", no_locks)
    (tmp_path / ".unpacking-somebody").mkdir()
    unpack(write_tar(tmp_path / "a.tar"), tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".unpacking-somebody", "a.tar", "c.txt", "train"]


def refused(path, tmp_path, message):
    """The archive is refused, its folder is empty, and nothing beside it has changed."""
    target, before = tmp_path / "deep" / "in" / "target", contents(tmp_path)
    with pytest.raises(DataError, match=message):
        unpack(path, target)
    assert list(target.iterdir()) == []
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_an_archive_is_unpacked_into_its_folder(tmp_path, name, capsys):
    path = (write_zip if name == "a.zip" else write_tar)(tmp_path / name)
    assert main(["data", "unpack", str(path), str(tmp_path / "out")]) == 0
    assert contents(tmp_path / "out") == FILES
    assert sorted(os.listdir(tmp_path / "out")) == ["c.txt", "train"]
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / n) for n in ("c.txt", "train")
    ]


def member(name, kind=tarfile.REGTYPE, target="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


HOSTILE = {
    "climbs": ([member("../../x", size=4)], "leads out"),
    "climbs later": ([member("a/../../../x")], "leads out"),
    "absolute": ([member("/tmp/x")], "leads out"),
    "backslash": ([member("..\\..\\x")], "leads out"),
    "drive": ([member("C:/x")], "leads out"),
    "symlink out": ([member("l", tarfile.SYMTYPE, "/etc"), member("l/x")], "'l' is a link"),
    "symlink up": ([member("l", tarfile.SYMTYPE, "../..")], "'l' is a link"),
    "symlink inside": ([member("l", tarfile.SYMTYPE, "c.txt")], "'l' is a link"),
    "hardlink": ([member("h", tarfile.LNKTYPE, "/etc/passwd")], "'h' is a link"),
    "hardlink inside": ([member("h", tarfile.LNKTYPE, "c.txt")], "'h' is a link"),
    "device": ([member("d", tarfile.CHRTYPE)], "'d' is a device"),
    "disk": ([member("d", tarfile.BLKTYPE)], "'d' is a device"),
    "pipe": ([member("p", tarfile.FIFOTYPE)], "'p' is a device"),
    "twice": ([member("c.txt")], "'c.txt' comes twice"),
    "a file as folder": ([member("c.txt/x")], "comes twice|cannot be written"),
    "unknown": ([member("v", b"V")], "'v' is of an unknown kind"),
}


@pytest.mark.fault(38)
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_tar_that_would_write_elsewhere_is_refused_whole(tmp_path, name, suffix):
    extra, message = HOSTILE[name]
    refused(write_tar(tmp_path / f"a{suffix}", extra=extra), tmp_path, message)


def entry(name, mode=stat.S_IFREG):
    info = zipfile.ZipInfo("placeholder")
    info.filename = info.orig_filename = name
    info.external_attr = (mode | 0o644) << 16
    return info


@pytest.mark.fault(38)
@pytest.mark.parametrize(
    ("info", "message"),
    [
        (entry("../../x"), "leads out"),
        (entry("/tmp/x"), "leads out"),
        (entry("..\\x"), "leads out"),
        (entry("link", stat.S_IFLNK), "'link' is a link"),
        (entry("device", stat.S_IFCHR), "'device' is a device"),
        (entry("pipe", stat.S_IFIFO), "'pipe' is a device"),
        (entry("c.txt"), "'c.txt' comes twice"),
    ],
    ids=lambda value: getattr(value, "filename", ""),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_that_would_write_elsewhere_is_refused_whole(tmp_path, info, message):
    refused(write_zip(tmp_path / "a.zip", extra=[(info, b"/etc")]), tmp_path, message)


@pytest.mark.fault(38)
def test_links_that_are_in_the_folder_already_are_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="train: is there already"):
        unpack(write_tar(tmp_path / "a.tar"), tmp_path / "out")
    assert os.listdir(tmp_path / "elsewhere") == []
    assert os.listdir(tmp_path / "out") == ["train"]


@pytest.fixture
def small(monkeypatch):
    """Bombs are small, so that a test that fails does not fill the disk."""
    monkeypatch.setattr(compressed, "FREE_BYTES", 1 << 18)


ZEROS = bytes(12_000_000)


@pytest.mark.fault(39)
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_bomb_is_stopped_at_a_hundred_times_its_size(tmp_path, small, suffix):
    write = write_zip if suffix == ".zip" else write_tar
    path = write(tmp_path / f"a{suffix}", {"zeros": ZEROS})
    assert path.stat().st_size < 20_000
    refused(path, tmp_path, "unpacks to more than 100 times its size")


@pytest.mark.fault(39)
def test_a_bomb_that_lies_about_its_size_is_stopped(tmp_path, small):
    path = write_zip(tmp_path / "a.zip", {"zeros": ZEROS})
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (10).to_bytes(4, "little")  # bytes, it says
    path.write_bytes(data)
    refused(path, tmp_path, "100 times its size|damaged")


@pytest.mark.fault(39)
def test_a_bomb_whose_members_share_their_bytes_is_stopped(tmp_path, small):
    path = write_zip(tmp_path / "a.zip", {"0": os.urandom(20_000)})
    with zipfile.ZipFile(path, "a") as archive:
        shared = archive.infolist()[0]
        for number in range(1, 4000):  # entries of the directory that all name one place
            other = zipfile.ZipInfo(str(number))
            for field in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(other, field, getattr(shared, field))
            archive.filelist.append(other)
        archive._didModify = True
    assert path.stat().st_size < 300_000
    refused(path, tmp_path, "100 times its size|damaged")


@pytest.mark.fault(39)
def test_a_size_limit_stops_what_its_ratio_would_allow(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "MAX_BYTES", 10_000)
    path = write_tar(tmp_path / "a.tar.gz", {"noise": os.urandom(50_000)})
    refused(path, tmp_path, "more than 10,000 bytes")


@pytest.mark.fault(39)
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_of_nested_archives_only_the_outer_one_is_unpacked(tmp_path, suffix):
    write = write_zip if suffix == ".zip" else write_tar
    inner = write(tmp_path / f"inner{suffix}", {"zeros": ZEROS}).read_bytes()
    path = write(tmp_path / f"a{suffix}", {f"inner{n}{suffix}": inner for n in range(10)})
    unpack(path, tmp_path / "out")
    assert contents(tmp_path / "out") == {f"inner{n}{suffix}": inner for n in range(10)}


@pytest.mark.fault(39)
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_annotations_that_are_a_bomb_are_refused(tmp_path, small, kind, suffix):
    path = tmp_path / f"captions.{kind}{suffix}"
    path.write_bytes(PACKERS[suffix](b" " * len(ZEROS)))
    with pytest.raises(DataError, match="unpacks to more than 100 times its size"):
        list(read(str(path), kind))


@pytest.mark.fault(39)
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_of_nested_annotations_only_one_layer_is_unpacked(tmp_path, suffix):
    path = tmp_path / f"captions.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix](PACKERS[suffix](b'{"a": 1}\n' * 1000)))
    with pytest.raises(DataError, match="not JSON"):
        list(read(str(path), "jsonl"))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
@pytest.mark.parametrize("keep", [0, 0.1, 0.5, 0.9])
def test_a_cut_archive_is_refused_whole(tmp_path, name, keep):
    noise = {f"{n}.jpg": os.urandom(5000) for n in range(5)}
    path = (write_zip if name == "a.zip" else write_tar)(tmp_path / name, noise)
    end = 5 * 5632 if name == "a.tar" else path.stat().st_size  # without what fills a tar up
    os.truncate(path, int(end * keep))
    refused(path, tmp_path, str(path))


def test_a_tar_that_ends_with_a_small_zip_is_a_tar(tmp_path):
    inner = write_zip(tmp_path / "inner.zip").read_bytes()
    unpack(write_tar(tmp_path / "a.tar", {"a.jpg": b"a" * 3000, "z.zip": inner}), tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["a.jpg", "z.zip"]


@pytest.mark.parametrize(
    "packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_zip_with_any_byte_damaged_is_unpacked_or_refused_in_words(tmp_path, packed):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("ä", b"caption " * 5)
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x88]) + good[at + 1 :])
        out, refusal = tmp_path / f"out{at}", None
        try:
            unpack(path, out)
        except DataError as error:
            refusal = str(error)
        assert len(os.listdir(out)) == (refusal is None)
        assert refusal is None or "None" not in refusal


def test_a_name_that_is_taken_stays_and_the_rest_is_not_unpacked(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "c.txt").write_text("mine")
    with pytest.raises(DataError, match=r"c\.txt: is there already; remove it"):
        unpack(write_zip(tmp_path / "a.zip"), tmp_path / "out")
    assert contents(tmp_path / "out") == {"c.txt": b"mine"}
