"""Grey of 16 and 32 bits and of floats looks the same on every path."""

from __future__ import annotations

import io

import numpy
import pytest
from PIL import Image

from lavis_lite import load_processor
from lavis_lite.data.files.deep_grey import to_rgb
from lavis_lite.data.files.images import decode

RAMP = numpy.linspace(0, 1, 256).reshape(16, 16)


def image(kind):
    """A ramp from black to white, as a file of some depth, opened."""
    values, suffix = {
        "16 bits, PNG": ((RAMP * 65535).astype(numpy.uint16), "PNG"),
        "16 bits, PGM": ((RAMP * 65535).astype(numpy.uint16), "PPM"),
        "16 bits, TIFF": ((RAMP * 65535).astype(numpy.uint16), "TIFF"),
        "32 bits of 16": ((RAMP * 65535).astype(numpy.int32), "TIFF"),
        "32 bits of 8": (numpy.rint(RAMP * 255).astype(numpy.int32), "TIFF"),
        "32 bits": ((RAMP * (2**31 - 1)).astype(numpy.int32), "TIFF"),
        "signed": (((RAMP - 0.5) * 2000).astype(numpy.int32), "TIFF"),
        "floats to 1": (RAMP.astype(numpy.float32), "TIFF"),
        "floats to 255": ((RAMP * 255).astype(numpy.float32), "TIFF"),
        "floats to 1000": ((RAMP * 1000).astype(numpy.float32), "TIFF"),
    }[kind]
    file = io.BytesIO()
    Image.fromarray(values).save(file, suffix)
    return file


KINDS = [
    *("16 bits, PNG", "16 bits, PGM", "16 bits, TIFF", "32 bits of 16", "32 bits of 8", "32 bits"),
    *("signed", "floats to 1", "floats to 255", "floats to 1000"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_ramp_stays_a_ramp(kind):
    pixels = numpy.asarray(decode(image(kind).getvalue()))
    assert numpy.abs(pixels[..., 0] - RAMP * 255).max() <= 1
    assert len(numpy.unique(pixels)) == 256


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["blip_image_eval", "clip_image_eval"])
def test_a_processor_sees_in_an_opened_image_what_it_sees_in_a_decoded_one(kind, name):
    process = load_processor(name, image_size=16)
    file = image(kind)
    assert process(Image.open(file)).equal(process(decode(file.getvalue())))


def test_a_dark_pgm_stays_dark():
    file = io.BytesIO()
    Image.fromarray(numpy.full((4, 4), 200, numpy.uint16)).save(file, "PPM")
    assert numpy.asarray(decode(file.getvalue())).max() == 0


def test_what_is_no_number_is_black_and_the_rest_keeps_its_range():
    values = numpy.array([[0, 1, numpy.nan], [0.5, numpy.inf, -numpy.inf]], numpy.float32)
    pixels = numpy.asarray(to_rgb(Image.fromarray(values)))[..., 0]
    assert pixels.tolist() == [[0, 255, 0], [128, 0, 0]]
    empty = numpy.full((2, 2), numpy.nan, numpy.float32)
    assert not numpy.asarray(to_rgb(Image.fromarray(empty))).any()


def test_8_bits_are_converted_as_pil_does():
    for mode in ("L", "RGBA", "P", "CMYK", "1"):
        picture = Image.new(mode, (3, 2), 1)
        assert to_rgb(picture).tobytes() == picture.convert("RGB").tobytes()
