import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy
import pytest
from PIL import Image, ImageFile

from lavis_lite.data.files.images import decode
from lavis_lite.errors import DataError


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(size=(40, 30), mode="RGB"):
    pixels = numpy.random.default_rng(0).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(numpy.uint8)).convert(mode)


def png_chunk(kind, data):
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def blank_png(width, height, before=b""):
    """A huge picture in a few kilobytes, made without ever holding it."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width // 8 + 1)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")
    head, *rest = (png_chunk(*chunk) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + before + b"".join(rest)


def many_frames_tiff(count):
    """A chain of `count` directories, each one pixel, the first grey, the others white."""
    entries = 8
    length = 2 + 12 * entries + 4
    frames = []
    for number in range(count):
        pixel_at = 8 if number == 0 else 9
        tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: pixel_at, 278: 1, 279: 1}
        body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        following = 12 + (number + 1) * length if number + 1 < count else 0
        frames.append(struct.pack("<H", entries) + body + struct.pack("<I", following))
    return b"II*\0" + struct.pack("<I", 12) + b"\x7f\xff\0\0" + b"".join(frames)


def test_paths_bytes_and_images_decode_alike(tmp_path):
    image = photo()
    image.save(tmp_path / "a.png")
    sources = [tmp_path / "a.png", str(tmp_path / "a.png"), encoded(image), image]
    assert all(numpy.array_equal(decode(source), image) for source in sources)


@pytest.mark.fault(19)
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA", "CMYK"])
def test_unusual_modes_are_converted_as_pil_does(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    data = encoded(photo(mode=mode), kind)
    decoded = decode(data)
    assert decoded.mode == "RGB"
    assert numpy.array_equal(decoded, Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.fault(19)
def test_transparency_is_dropped_and_the_colour_under_it_shows():
    assert decode(Image.new("RGBA", (2, 2), (200, 10, 20, 0))).getpixel((0, 0)) == (200, 10, 20)


@pytest.mark.fault(19)
def test_sixteen_bits_are_scaled_not_clipped():
    values = numpy.array([[0, 256, 32768, 65535]], numpy.uint16)
    decoded = numpy.asarray(decode(encoded(Image.fromarray(values))))
    assert decoded[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.fault(19)
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.fault(19)
def test_exif_rotation_is_ignored_unless_asked_for():
    exif = Image.Exif()
    exif[274] = 6  # shown after a quarter turn
    data = encoded(photo((40, 20)), "JPEG", exif=exif)
    assert decode(data).size == (40, 20)
    assert decode(data, exif=True).size == (20, 40)


@pytest.mark.fault(19)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>404</html>", "not an image: HTML"),
        (b"\n <html><body>login</body>", "not an image: HTML"),
        pytest.param(
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "not an image: SVG",
            marks=pytest.mark.fault(24),
        ),
        pytest.param(
            b"<?xml version='1.0'?>\n<svg width='1'/>",
            "not an image: SVG",
            marks=pytest.mark.fault(24),
        ),
        (b'{"error": "gone"}', "not an image: JSON"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image: PostScript"),
        (b"\x00" * 500, "not an image: the format is not known"),
        (encoded(photo(), "JPEG")[:-200], "truncated image"),
        (encoded(photo(), "JPEG")[:30], "not an image"),
        (encoded(photo(), "PNG")[:-400], "truncated image"),
        (encoded(photo(), "PNG")[:10], "not an image"),
        (encoded(photo(), "GIF")[:-300], "truncated image"),
        (encoded(photo(), "WEBP")[:100], "not an image|damaged image|truncated image"),
        (encoded(photo(), "BMP")[:100], "truncated image"),
        (encoded(photo(), "TIFF")[:-100], "truncated image|damaged image|not an image"),
    ],
)
def test_what_is_broken_is_a_data_error_with_a_short_reason(data, reason):
    with pytest.raises(DataError, match=f"^({reason})") as caught:
        decode(data)
    assert len(str(caught.value)) < 120


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_anywhere_is_a_data_error_or_a_picture():
    rng = numpy.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF"):
        data = encoded(photo((16, 16)), kind)
        for _ in range(40):
            bad = bytearray(data)
            for place in rng.integers(len(bad), size=6):
                bad[place] = int(rng.integers(256))
            with contextlib.suppress(DataError):
                assert decode(bytes(bad)).mode == "RGB"


@pytest.mark.fault(19)
def test_missing_files_folders_and_addresses_are_data_errors(tmp_path):
    for source, reason in (
        (tmp_path / "no.jpg", r"missing file: .*no\.jpg"),
        (tmp_path, "unreadable file"),
        ("http://127.0.0.1/cat.jpg", "not a file"),
        ("a\0.jpg", "not a file"),
        ("\ud83d.jpg", "not a file"),
        (7, "not a file"),
    ):
        with pytest.raises(DataError, match=reason):
            decode(source)


def test_what_would_never_end_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero"):
        with pytest.raises(DataError, match=r"^not a file: \S+ \(a pipe or device\)$"):
            decode(path)


def test_truncation_is_refused_where_another_library_switched_the_check_off(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="truncated image"):
        decode(encoded(photo(), "JPEG")[:-200])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_more_pixels_than_the_limit_are_refused():
    assert decode(photo((40, 30)), max_pixels=1200).size == (40, 30)
    for source in (photo((40, 30)), encoded(photo((40, 30)))):
        with pytest.raises(DataError, match="too many pixels: 40 x 30, the limit is 1,199"):
            decode(source, max_pixels=1199)


# Peak memory is that of a process's life: only a process of its own tells what one image took.
DECODE = """
import sys
from PIL import Image
from lavis_lite.data.files.images import decode
from lavis_lite.errors import DataError

Image.MAX_IMAGE_PIXELS = None  # as many a library does, which leaves our limit alone

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line)

for kind in ("png", "tif"):
    decode(sys.argv[2] + kind)  # PIL's plug-ins are imported
before = peak()
try:
    print(decode(sys.argv[1]).getpixel((0, 0)))
except DataError as error:
    print(error)
print(peak() - before)
"""


def decode_elsewhere(folder, data):
    """What decoding gives or says in a process of its own, and by how many MB that grew."""
    (folder / "image").write_bytes(data)
    for kind in ("png", "tif"):
        photo().save(folder / f"good.{kind}")
    done = subprocess.run(
        [sys.executable, "-c", DECODE, str(folder / "image"), str(folder / "good.")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said, kilobytes = done.stdout.splitlines()
    return said, int(kilobytes) / 1000


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is not known")
@pytest.mark.parametrize(
    "side",
    [
        pytest.param(15_000, marks=pytest.mark.fault(22)),
        pytest.param(10_000, marks=pytest.mark.fault(23)),
        pytest.param(7_100, marks=pytest.mark.fault(23)),
    ],
)
def test_a_bomb_is_refused_from_its_header(tmp_path, side):
    data = blank_png(side, side)
    assert len(data) < 60_000
    said, grown = decode_elsewhere(tmp_path, data)
    assert said.startswith("too many pixels")
    assert grown < 50


def text_bomb(kind):
    """A PNG chunk of 300 KB that holds 300 MB of text, or a hundred that hold a million each."""
    packed = zlib.compress(bytes(300_000_000), 1)
    if kind == "many":
        million = zlib.compress(b"x" * 1_000_000, 9)
        return b"".join(png_chunk(b"zTXt", b"k%d\0\0" % n + million) for n in range(300))
    start = {"zTXt": b"Comment\0\0", "iTXt": b"Comment\0\1\0\0\0", "iCCP": b"profile\0\0"}
    return png_chunk(kind.encode(), start[kind] + packed)


@pytest.mark.fault(24)
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is not known")
@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "many"])
def test_a_text_bomb_is_refused_or_its_text_is_left_out(tmp_path, kind):
    said, grown = decode_elsewhere(tmp_path, blank_png(8, 8, before=text_bomb(kind)))
    assert said.startswith(("not an image", "damaged image", "(0, 0, 0)"))
    assert grown < 100


@pytest.mark.fault(24)
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is not known")
def test_of_a_hundred_thousand_frames_only_the_first_is_read(tmp_path):
    said, grown = decode_elsewhere(tmp_path, many_frames_tiff(100_000))
    assert said == "(127, 127, 127)"
    assert grown < 50


def test_postscript_starts_no_program(tmp_path):
    """PIL's EPS plug-in runs Ghostscript; a fake one in the path would leave a mark."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.jpg").write_bytes(page)
    code = "import sys; from lavis_lite.data.files.images import decode; decode(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.jpg")],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert "not an image: PostScript" in done.stderr
    assert not (tmp_path / "ran").exists()
