"""Headers of tar files: read as tarfile reads good ones, and never believed."""

import io
import struct
import tarfile

import pytest

from lavis_lite.data.files.tar_headers import DamagedHeader, Member, members
from lavis_lite.data.files.tar_index import index_shard

NAMES = ["a.txt", "deep/" * 40 + "b.txt", "n" * 150 + ".txt", "ünïcode/Ж.txt", "last.txt"]


def archive(names=NAMES, form=tarfile.PAX_FORMAT, **changes):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 300 * number
            for field, value in changes.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return bytearray(file.getvalue())


def with_header(data, start, field, value):
    """The archive with a field of the header at `start` rewritten, its checksum right again."""
    data[start + field : start + field + len(value)] = value
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    return data


def read(data):
    return list(members(io.BytesIO(bytes(data))))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_good_archives_are_read_as_tarfile_reads_them(form):
    names = NAMES if form != tarfile.USTAR_FORMAT else [NAMES[0], "deep/" * 30 + "b", NAMES[4]]
    # macOS writes names of extended attributes, of up to 255 bytes.
    headers = {"comment": "x" * 2000, "LIBARCHIVE.xattr." + "n" * 255: "1"}
    data = archive(names, form, pax_headers=headers)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [Member(m.name, "file", m.offset_data, m.size) for m in tar]
    assert read(data) == expected


def test_sizes_above_eight_gigabytes_are_read():
    data = with_header(archive(["a"]), 0, 124, b"\x80" + (9 << 30).to_bytes(11, "big"))
    assert next(members(io.BytesIO(data))).size == 9 << 30


def test_folders_links_devices_and_the_unknown_are_told_apart():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for kind in (b"5", b"1", b"2", b"3", b"4", b"6", b"V"):
            info = tarfile.TarInfo("x")
            info.type, info.linkname = kind, "y"
            tar.addfile(info)
    kinds = [member.kind for member in read(file.getvalue())]
    assert kinds == ["folder", *["a link"] * 2, *["a device"] * 3, "of an unknown kind"]


@pytest.mark.fault(20)
def test_a_damaged_header_in_the_middle_is_named_not_taken_for_the_end(tmp_path):
    data = archive(["a.txt", "b.txt", "c.txt"])
    damaged = 512  # of b.txt: a.txt has no bytes
    data[damaged + 3] ^= 0x40
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert len(tar.getmembers()) == 1  # and no word about it
    (tmp_path / "a.tar").write_bytes(data)
    index = index_shard(tmp_path / "a.tar")
    assert [key for key, _ in index.samples] == ["a"]
    assert index.cut == "has a damaged header at byte 512"


@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"-0000000512\0", b"99999999999\0"]
)
def test_a_size_that_cannot_be_is_refused(size):
    data = with_header(archive(["a.txt", "b.txt"]), 512, 124, size)
    with pytest.raises(DamagedHeader, match="without a sensible size at byte 512"):
        read(data)


def pax(body, claimed=None):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(body) if claimed is None else claimed
    padded = body + bytes(-len(body) % 512)
    return bytearray(info.tobuf(tarfile.USTAR_FORMAT)) + padded + archive(["a.txt"])


@pytest.mark.parametrize(
    ("body", "claimed", "message"),
    [
        (b"18 size=-00000512\n", None, "sensible size"),
        (b"99 path=x\n", None, "damaged header"),
        (b"0 path=x\n", None, "damaged header"),
        (b"9" * 500 + b" path=x\n", None, "damaged header"),
        (b"path=x\n", None, "damaged header"),
        (b"22 GNU.sparse.major=1\n", None, "sparse"),
        (b"", 2 << 20, "header of 2,097,152 bytes"),
        (b"", 1 << 40, "header of 1,099,511,627,776 bytes"),
    ],
)
def test_lies_in_pax_headers_are_refused(body, claimed, message):
    if claimed:
        data = with_header(pax(body), 0, 124, b"\x80" + claimed.to_bytes(11, "big"))
    else:
        data = pax(body)
    with pytest.raises(DamagedHeader, match=message):
        read(data)


def test_an_archive_without_an_end_says_so():
    data = archive(["a.txt", "b.txt"])
    with pytest.raises(EOFError, match="no end mark"):
        read(data[:1536])
    with pytest.raises(EOFError, match="middle of a header"):
        read(data[:700])


def test_checksums_of_signed_bytes_are_accepted_as_old_programs_wrote_them():
    data = archive(["é.txt"], tarfile.GNU_FORMAT)
    signed = sum(struct.unpack("148b8x356b", data[:512])) + 256
    data[148:156] = b"%06o\0 " % signed
    assert [member.name for member in read(data)] == ["é.txt"]
