"""Captions from an exported folder, by onnxruntime and numpy. Imports no torch.

Dim letters: B images, P tokens of the prompt, L tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy
from PIL import Image
from tokenizers import Tokenizer

from lavis_lite.data.files.images import decode
from lavis_lite.errors import ConfigError, NotFinite
from lavis_lite.models.export import description
from lavis_lite.models.export.onnx_files import Session
from lavis_lite.models.export.pictures import Array, prepared

Picture: TypeAlias = Image.Image | str | Path | bytes
PARTS = ("image", "caption_context", "caption_step")


class OnnxCaptioner:
    """Describes pictures with the ONNX files of a captioner, by greedy search.

    The captions are those of ``model.generate(samples, num_beams=1)``.

    Args:
        folder: of ``lavis-lite export`` or ``export_model``, in the format ``onnx``.
        threads: of a product; None leaves it to onnxruntime.

    Raises:
        CheckpointError: no such folder, or a damaged one.
        ConfigError: a folder without captions or in another format; onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        self.description = found = description.read(folder)
        folder = Path(folder).expanduser()
        if found.format != "onnx" or found.captions is None:
            raise ConfigError(
                f"{folder}: has {', '.join(found.parts)} in the format {found.format!r}; captions "
                f"need {', '.join(PARTS)} in the format 'onnx': lavis-lite export a model that "
                "writes captions, such as blip_caption"
            )
        self._image, self._context, self._step = (
            Session(folder / found.parts[name].file, threads) for name in PARTS
        )
        self._tokenizer = _read_tokenizer(folder, found)
        self._prompt: list[int] = found.captions["prompt_ids"]

    def __call__(
        self,
        images: Picture | Sequence[Picture] | Array,
        max_length: int = 30,
        min_length: int = 10,
    ) -> list[str]:
        """Return a caption of each image, without the prompt.

        Args:
            images: a picture, or several (PIL images, paths or files' bytes), each prepared as by
                the model's own image processor; or an array (B, 3, H, W) of prepared ones.
            max_length: most tokens of a text, the prompt's included.
            min_length: fewest tokens of a text, the prompt's included.

        Raises:
            ConfigError: lengths that the decoder does not have, or an array of another shape.
            DataError: a picture that cannot be read.
            NotFinite: the decoder gives no numbers.
        """
        start, drops = len(self._prompt), set(self.description.tokenizer["drops"])
        rows = self.generate_ids(images, max_length, min_length)
        texts = [[index for index in row[start:] if index not in drops] for row in rows]
        return [self._tokenizer.decode(ids, skip_special_tokens=False).strip() for ids in texts]

    def generate_ids(
        self,
        images: Picture | Sequence[Picture] | Array,
        max_length: int = 30,
        min_length: int = 10,
    ) -> list[list[int]]:
        """Return the token ids of each caption, with the prompt and without the end token.

        The arguments are those of a call.
        """
        captions = self.description.captions
        assert captions is not None
        if not len(self._prompt) < max_length <= captions["max_positions"]:
            raise ConfigError(
                f"max_length: {max_length}; from {len(self._prompt) + 1}, one more than the prompt "
                f"has, to {captions['max_positions']}, the positions of the decoder"
            )
        pixels = self._pixels(images)
        if not len(pixels):
            return []
        tokens = self._image({"image": pixels})["image_tokens"]
        context = self._context({"image_tokens": tokens})
        return self._search(context, len(pixels), max_length, min_length)

    def _search(
        self, context: dict[str, Array], num_images: int, max_length: int, min_length: int
    ) -> list[list[int]]:
        """Take the likeliest token at each step, until every text has ended."""
        end, pad = (self.description.tokenizer[key] for key in ("end_id", "pad_id"))
        tokens = new = numpy.tile(numpy.array(self._prompt, numpy.int64), (num_images, 1))  # (B, P)
        ended = numpy.zeros(num_images, bool)
        cache = self._empty_cache(num_images)
        while True:
            found = self._step({"ids": new, **cache, **context})
            logits = found.pop("logits")  # (B, V)
            if not numpy.isfinite(logits).all():
                bad = (~numpy.isfinite(logits).all(-1)).nonzero()[0]
                raise NotFinite("the logits of a text", bad.tolist())
            if tokens.shape[1] < min_length:
                logits[:, end] = -numpy.inf
            chosen = numpy.where(ended, pad, logits.argmax(-1))[:, None]  # (B, 1)
            tokens = numpy.concatenate([tokens, chosen], axis=1)  # (B, L + 1)
            ended |= chosen[:, 0] == end
            if ended.all() or tokens.shape[1] == max_length:
                return [self._cut(row, end) for row in tokens.tolist()]
            cache = {name.replace("present", "past"): value for name, value in found.items()}
            new = chosen

    def _cut(self, row: list[int], end: int) -> list[int]:
        start = len(self._prompt)
        return row[: row.index(end, start)] if end in row[start:] else row

    def _empty_cache(self, num_images: int) -> dict[str, Array]:
        """Return keys and values of no token, as the first step takes them."""
        lengths = {"batch": num_images, "past": 0}
        return {
            value.name: numpy.zeros(
                [n if isinstance(n, int) else lengths[n] for n in value.shape], value.dtype
            )
            for value in self.description.parts["caption_step"].inputs
            if value.name.startswith("past")
        }

    def _pixels(self, images: Picture | Sequence[Picture] | Array) -> Array:
        """Return images as an array (B, 3, H, W) of fp32."""
        shape = self.description.parts["image"].inputs[0].shape
        wanted = [length for length in shape if isinstance(length, int)]  # 3, H, W
        if isinstance(images, numpy.ndarray):
            if images.ndim != 4 or list(images.shape[1:]) != wanted:
                sizes = ", ".join(map(str, wanted))
                raise ConfigError(
                    f"images: an array {images.shape}; (B, {sizes}) is expected, of floats"
                )
            return images.astype(numpy.float32, copy=False)
        recipe = self.description.preprocessing
        if recipe is None:
            raise ConfigError(
                "images: the exported model's image processor tells no recipe; prepare the "
                "pictures and give an array (B, 3, H, W)"
            )
        pictures = [images] if isinstance(images, Image.Image | str | Path | bytes) else images
        rows = [
            prepared(one if isinstance(one, Image.Image) else decode(one), recipe)
            for one in pictures
        ]
        return numpy.stack(rows) if rows else numpy.zeros((0, *wanted), numpy.float32)


def _read_tokenizer(folder: Path, found: description.Description) -> Tokenizer:
    """Read the tokenizer of a folder.

    Raises:
        ConfigError: it has none, because the library tokenizers could not take it.
    """
    if (name := found.tokenizer["file"]) is None:
        raise ConfigError(
            f"{folder}: has no tokenizer.json, as the library tokenizers does not know the model's"
        )
    return Tokenizer.from_file(str(folder / name))
