"""blip_image_text_matching: how well a text fits an image."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import Spec
from lavis_lite.models.build import build_text, build_vision, describe_arguments, width_of
from lavis_lite.models.images import images_of
from lavis_lite.models.multimodal import FirstToken
from lavis_lite.models.retrieval import Retrieval
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.layers.similarity import cosines
from lavis_lite.modules.output import ModelOutput, Samples
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.projects.blip.formats import BlipFormats


class BlipITM(Retrieval):
    """The towers of a retrieval model, for inference: matching logits and cosine similarity."""

    formats = BlipFormats()

    def forward(  # type: ignore[override]  # scores in place of losses
        self, samples: Samples, match_head: Literal["itm", "itc"] = "itm"
    ) -> Tensor | ModelOutput:
        """Scores of a batch, as LAVIS's users call it; without dropout in any mode.

        Args:
            samples: ``image`` (B, 3, H, W) and ``text_input``, B texts.
            match_head: ``itm`` gives (B, 2) logits, whose softmax[:, 1] is the probability of a
                match; ``itc`` the (B images, B texts) cosine similarities, in [-1, 1].
        """
        with eval_mode(self):
            tokens = self.encode_image(images_of(samples, self.device))
            texts: Any = samples["text_input"]
            texts = [texts] * len(tokens) if isinstance(texts, str) else texts
            return self._score(tokens, self.tokenize(texts), match_head)

    def itm_rank(
        self,
        image_embeds: Tensor,
        image_atts: Tensor | None,
        encoder_input_ids: Tensor,
        match_head: Literal["itm", "itc"] = "itm",
    ) -> Tensor:
        """Scores of texts that a captioner wrote, as LAVIS's Img2Prompt asks for them.

        ``rank`` scores any texts, and several per image.

        Args:
            image_embeds: (B, N, D) image tokens, as ``encode_image`` gives them.
            image_atts: not looked at: all image tokens are real.
            encoder_input_ids: (B, T) ids that start with ``[DEC]`` and a prompt of three tokens
                ("a picture of"); the first three are left out and the fourth becomes the start.
            match_head: as in ``forward``.
        """
        ids = encoder_input_ids[:, 3:].clone().to(self.device)
        mask = (ids != self.tokenizer.pad_id).long()
        ids[:, 0] = self.tokenizer.cls_id
        with eval_mode(self):
            return self._score(image_embeds.to(self.device), TextBatch(ids, mask), match_head)

    def _score(self, tokens: Tensor, text: TextBatch, match_head: str) -> Tensor:
        if match_head == "itm":
            return self.match(tokens, text)
        if match_head == "itc":
            return cosines(self.image_features(tokens), self.text_features(self.encode_text(text)))
        raise ValueError(f"match_head is 'itm' or 'itc', not {match_head!r}")


@registry.register("model", "blip_image_text_matching")
@describe_arguments
def blip_image_text_matching(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 384,
    tokenizer: str | None = None,
    embed_width: int = 256,
    max_length: int = 35,
    first_token: FirstToken = "enc",
) -> BlipITM:
    """The towers of a retrieval model, for inference: matching logits and cosine similarity.

    Args:
        first_token: what a text starts with where it is read with an image: ``enc``, as the
            models were trained, or ``cls``, as in BLIP's own matching demo, whose figures it gives.
    """
    words = load_tokenizer(tokenizer)
    images = build_vision(vision, image_size)
    reader = build_text(text, words, source=images)
    return BlipITM(
        images,
        reader,
        words,
        vision_proj=nn.Linear(width_of(images), embed_width),
        text_proj=nn.Linear(reader.width, embed_width),
        itm_head=nn.Linear(reader.width, 2),
        image_size=image_size,
        max_length=max_length,
        temperature=None,
        first_token=first_token,
    )
