"""blip2_image_text_matching: how well a text fits an image."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lavis_lite import registry
from lavis_lite.config.calls import checked_options
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import Spec
from lavis_lite.models.build import describe_arguments
from lavis_lite.models.images import images_of
from lavis_lite.models.texts import texts_of
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.layers.similarity import paired_cosines
from lavis_lite.modules.output import Samples
from lavis_lite.projects.blip2.build import stage1_parts
from lavis_lite.projects.blip2.model import Blip2Qformer


class Blip2ITM(Blip2Qformer):
    """A model of the first stage, for inference: matching logits and cosine similarity."""

    @checked_options
    def forward(  # scores in place of losses
        self, samples: Samples, match_head: Literal["itm", "itc"] = "itm"
    ) -> Tensor:
        """Scores of each image with its own text; without dropout in any mode.

        Args:
            samples: ``image`` (B, 3, H, W) and ``text_input``, B texts of any lengths.
            match_head: ``itm`` gives (B, 2) logits, whose softmax[:, 1] is the probability of a
                match; ``itc`` the (B, 1) cosine similarities, in [-1, 1], of the query that is
                closest to the text. The two are not comparable: 0.4 is a high cosine.

        Raises:
            ConfigError: more or fewer texts than images, or another head.
        """
        with eval_mode(self):
            tokens = self.encode_image(images_of(samples, self))
            text = self.tokenize(texts_of(samples, len(tokens)))
            if match_head == "itm":
                return self.match(tokens, text)
            texts = self.text_features(self.encode_text(text))
            return paired_cosines(self.image_features(tokens), texts)[:, None]


@registry.register("model", "blip2_image_text_matching")
@describe_arguments
def blip2_image_text_matching(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 224,
    tokenizer: str | None = None,
    embed_width: int = 256,
    max_length: int = 32,
    freeze_vision: bool = True,
) -> Blip2ITM:
    """A model of the first stage, for inference: matching logits and cosine similarity.

    Args:
        text: the component of the Q-Former.
        freeze_vision: take the vision encoder out of training and hold it in evaluation mode.

    Reference: BLIP-2, https://arxiv.org/abs/2301.12597, section 3.
    """
    parts = stage1_parts(
        vision,
        text,
        image_size=image_size,
        tokenizer=tokenizer,
        embed_width=embed_width,
        freeze_vision=freeze_vision,
    )
    return Blip2ITM(**parts, max_length=max_length)
