"""A dataset: a length, and rows with an image and a text."""

from typing import Any

from PIL import Image

from lavis_lite import registry

COLOURS = ("red", "green", "blue", "white", "black", "yellow")


@registry.register("dataset", "acme_plugin_flags")
class Flags:
    """Two colours above each other, and which.

    Args:
        size: side of the images in pixels.
    """

    def __init__(self, size: int = 64) -> None:
        self.size = size
        self.pairs = [(top, low) for top in COLOURS for low in COLOURS if top != low]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        top, low = self.pairs[index]
        image = Image.new("RGB", (self.size, self.size), low)
        image.paste(top, (0, 0, self.size, self.size // 2))
        text = f"a flag that is {top} above and {low} below"
        return {"image": image, "text_input": text, "image_id": index, "key": f"flags/{index}"}
