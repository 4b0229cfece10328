"""What decoders write to the terminal stays out of it, in loader processes too; our words stay."""

from __future__ import annotations

import io
import subprocess
import sys

from PIL import Image

# A TIFF of which libtiff complains from C, a PNG of which PIL warns.
READ = """
import logging, sys, warnings
from PIL import Image
from lavis_lite import registry
from lavis_lite.data.loader import EvalData, Processors
from lavis_lite.data.image_processors import BlipImageEval

if sys.argv[2] == "pil":
    for name in ("a.tif", "b.png"):
        try:
            Image.open(f"{sys.argv[1]}/{name}").convert("RGB")
        except OSError:
            pass
else:
    logging.basicConfig(level=logging.WARNING)
    dataset = registry.build("dataset", {"name": "folder", "path": sys.argv[1]})
    processors = Processors(BlipImageEval(image_size=4), lambda text, rng=None: text)
    data = EvalData(dataset, processors, batch_size=1, num_workers=int(sys.argv[2]))
    print(sum(len(batch["key"]) for batch in data.batches()))
    warnings.warn("a warning of the user's own")
"""


def write(folder):
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (1, 2, 3)).save(file, "TIFF", compression="tiff_adobe_deflate")
    data = bytearray(file.getvalue())
    data[10:20] = bytes(byte ^ 0xFF for byte in data[10:20])
    (folder / "a.tif").write_bytes(data)
    palette = Image.new("P", (4, 4))
    palette.putpalette([0, 1, 2] * 256)
    palette.save(folder / "b.png", transparency=bytes(range(256)))


def output(folder, what):
    command = [sys.executable, "-W", "always", "-c", READ, str(folder), what]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def test_noise_of_decoders_stays_out_of_the_terminal_and_our_words_do_not(tmp_path):
    write(tmp_path)
    noise = output(tmp_path, "pil").stderr
    assert "scanline" in noise  # or there would be nothing to silence
    assert "Palette images" in noise
    for workers in ("0", "2"):
        done = output(tmp_path, workers)
        assert done.stdout == "1\n"
        assert "unreadable sample 1: " in done.stderr
        assert "a.tif" in done.stderr or "damaged image" in done.stderr
        assert "a warning of the user's own" in done.stderr
        assert "scanline" not in done.stderr
        assert "Palette images" not in done.stderr
