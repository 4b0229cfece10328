"""blip_image_text_matching: how well a text fits an image."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.calls import checked_options
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.models.base import Spec
from lavis_lite.models.build import build_text, build_vision, describe_arguments, width_of
from lavis_lite.models.images import as_tokens, tokens_of
from lavis_lite.models.multimodal import FirstToken
from lavis_lite.models.retrieval import Retrieval
from lavis_lite.models.tensors import as_ids
from lavis_lite.models.texts import tokenized
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.layers.similarity import cosines
from lavis_lite.modules.output import ModelOutput, Samples
from lavis_lite.modules.samples import kind_of, needed
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.projects.blip.formats import BlipFormats


class BlipITM(Retrieval):
    """The towers of a retrieval model, for inference: matching logits and cosine similarity."""

    formats = BlipFormats()

    @checked_options
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
            tokens = tokens_of(samples, self)
            given = needed(samples, "text_input")
            texts = [given] * len(tokens) if isinstance(given, str) else given
            return self._score(tokens, tokenized(texts, self, "text_input"), match_head)

    @checked_options
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
        as_tokens(image_embeds, self, "image_embeds")
        as_ids(encoder_input_ids, len(self.tokenizer), "encoder_input_ids")
        if encoder_input_ids.shape[1] < 4:
            raise ConfigError(
                f"encoder_input_ids: {kind_of(encoder_input_ids)}; the first three are a prompt "
                "and are left out: at least 4 are expected"
            )
        ids = encoder_input_ids[:, 3:].clone().to(self.device)
        mask = (ids != self.tokenizer.pad_id).long()
        ids[:, 0] = self.tokenizer.cls_id
        with eval_mode(self):
            return self._score(image_embeds.to(self.device), TextBatch(ids, mask), match_head)

    def _score(self, tokens: Tensor, text: TextBatch, match_head: str) -> Tensor:
        if match_head == "itm":
            return self.match(tokens, text)
        return cosines(self.image_features(tokens), self.text_features(self.encode_text(text)))


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
