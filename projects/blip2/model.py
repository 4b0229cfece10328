"""blip2, also blip2_feature_extractor: contrast, matching and writing with a Q-Former."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lavis_lite import registry
from lavis_lite.config.calls import checked_options
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.models import captioning
from lavis_lite.models.base import Losses, LossSpecs, Spec, Texts, VisionLanguageModel, unit
from lavis_lite.models.build import describe_arguments
from lavis_lite.models.features import Features, check_mode
from lavis_lite.models.images import as_tokens, images_of
from lavis_lite.models.tensors import as_context, as_ids, as_mask, as_states, rows_in
from lavis_lite.models.texts import RankTexts, as_texts, candidates, matched, texts_of, tokenized
from lavis_lite.modules.layers.modes import eval_mode, full_precision
from lavis_lite.modules.med.attention import Source
from lavis_lite.modules.output import Samples
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.modules.text.wordpiece import WordPiece
from lavis_lite.projects.blip2 import towers
from lavis_lite.projects.blip2.build import stage1_parts
from lavis_lite.projects.blip2.formats import Blip2Formats
from lavis_lite.projects.blip2.inputs import as_reading, as_text_batch
from lavis_lite.projects.blip2.qformer import ImageReading, QFormer, QueryDecoder

TOKENS_AT_ONCE = 16384  # of queries and texts that `rank` reads at a time


class Blip2Qformer(VisionLanguageModel):
    """The first stage of BLIP-2: a Q-Former that learns from images and texts what to read.

    Args:
        visual_encoder: images (B, 3, H, W) -> tokens (B, N, C), with ``width`` C.
        ln_vision: the norm between it and the Q-Former, which trains also where it does not.
        qformer: queries and text tower, with the head over words.
        tokenizer: its words are those of the Q-Former.
        vision_proj: from a query's state to the joint space, (..., D) -> (..., E).
        text_proj: from a text's first state to the joint space, (B, D) -> (B, E).
        itm_head: from a query's state, read with a text, to the logits (..., 2).
        image_size: side of the square input, or its (height, width).
        max_length: tokens that a text is cut to.
        kept_elsewhere: prefix of weights that checkpoints may leave out, as they did not train
            them -> where the model has them from.
        losses: name -> loss.

    Reference: BLIP-2, https://arxiv.org/abs/2301.12597, section 3.
    """

    formats = Blip2Formats()
    tokenizer: WordPiece
    max_length: int
    embed_width: int
    text_towers = ("Qformer",)
    prompt = ""
    prompt_ids = captioning.prompt_ids
    generate = captioning.generate
    encode_image = towers.encode_image

    def __init__(
        self,
        visual_encoder: nn.Module,
        ln_vision: nn.Module,
        qformer: QFormer,
        tokenizer: WordPiece,
        *,
        vision_proj: nn.Linear,
        text_proj: nn.Linear,
        itm_head: nn.Linear,
        image_size: ImageSize,
        max_length: int = 32,
        kept_elsewhere: Mapping[str, str] | None = None,
        losses: Losses | None = None,
    ) -> None:
        super().__init__()
        self.image_size, self.max_length, self.tokenizer = image_size, max_length, tokenizer
        self.kept_elsewhere = dict(kept_elsewhere or {})
        self.visual_encoder, self.ln_vision = visual_encoder, ln_vision
        self.Qformer = qformer  # as LAVIS and its checkpoints call it
        self.vision_proj, self.text_proj, self.itm_head = vision_proj, text_proj, itm_head
        self.embed_width = vision_proj.out_features
        self.temp = nn.Parameter(torch.tensor(0.07))
        self.add_losses(losses)

    # ---- what losses and metrics ask for

    @property
    def temperature(self) -> Tensor:
        """() what cosine similarities are divided by, fp32; learnt, and not held in any range."""
        return self.temp.float()

    def tokenize(self, texts: str | Sequence[str]) -> TextBatch:
        """B texts to ids and mask (B, T), [CLS] first."""
        return self.tokenizer.encode(as_texts(texts, "texts"), self.max_length, device=self.device)

    def image_context(self, image_tokens: Tensor) -> ImageReading:
        """(B, N, C) -> the queries' reading of the images, with what they read it from."""
        return self.Qformer.read_image(as_tokens(image_tokens, self))

    def context_features(self, image_context: ImageReading) -> Tensor:
        """The queries' reading of B images -> (B, Q, E) unit length, fp32, one for each query."""
        return unit(self.vision_proj(as_reading(image_context).states))

    def image_features(self, image_tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, Q, E) unit length, fp32: the one closest to a text counts."""
        return self.context_features(self.image_context(image_tokens))

    def encode_text(self, text: Texts) -> Tensor:
        """B texts -> (B, T, D) states of the text alone."""
        batch = tokenized(text, self)
        return self.Qformer(batch.ids, batch.mask)

    def text_features(self, text_tokens: Tensor) -> Tensor:
        """(B, T, D) -> (B, E) unit length, fp32."""
        states = as_states(text_tokens, self.Qformer.width, "text_tokens")
        return unit(self.text_proj(states[:, 0]))

    @property
    def match_tower(self) -> QFormer:
        """The tower that reads image and text together."""
        return self.Qformer

    def match_pairs(self, image_context: ImageReading | Sequence[Source], text: Texts) -> Tensor:
        """Context of B images and K * B texts, image-major -> (K * B, 2) logits, fp32.

        Every query judges; the logits are the mean over the queries.
        """
        if isinstance(image_context, ImageReading):
            image_context = image_context.image_kv
        image_kv = as_context(image_context, self.Qformer.num_cross_layers)
        batch = tokenized(text, self)
        if len(batch.ids) % (num_images := rows_in(image_kv)):
            raise ConfigError(
                f"text: {len(batch.ids)} texts for {num_images} images; it takes the same number "
                "for each"
            )
        states = self.Qformer.read_with_text(image_kv, batch)  # (K * B, Q, D)
        head = self.itm_head
        with full_precision(states.device):
            each = linear(states.float(), head.weight.float(), head.bias.float())
        return each.mean(dim=1)

    def match(self, image_tokens: Tensor, text: Texts) -> Tensor:
        """(B, N, C) and B texts -> (B, 2) logits: does not match, matches.

        Raises:
            ConfigError: more or fewer texts than images.
        """
        batch = matched(text, len(as_tokens(image_tokens, self)), self)
        return self.match_pairs(self.Qformer.project(image_tokens), batch)

    def rank(self, image_tokens: Tensor, texts: RankTexts) -> Tensor:
        """(B, N, C) and K texts per image -> (B, K) logits of "matches".

        The image is projected once, and its texts are folded onto it, so many at a time that memory
        does not grow with K.

        Args:
            image_tokens: from ``encode_image``.
            texts: K texts for each image; K texts for all of them; or rows that are tokenised
                already, image-major.

        Raises:
            ConfigError: not the same number of texts for every image.
        """
        num_images = len(as_tokens(image_tokens, self))
        batch, shared = candidates(texts, num_images, self)
        if shared:
            batch = TextBatch(*(x.repeat(num_images, 1) for x in batch))
        if not len(batch.ids):
            return image_tokens.new_zeros(num_images, 0, dtype=torch.float32)
        image_kv = self.Qformer.project(image_tokens)
        ids, mask = (x.unflatten(0, (num_images, -1)) for x in batch)  # (B, K, T)
        of_text = num_images * (self.Qformer.num_queries + ids.shape[2])
        step = max(1, TOKENS_AT_ONCE // of_text)
        logits = []
        for part in zip(ids.split(step, dim=1), mask.split(step, dim=1), strict=True):
            some = TextBatch(*(x.flatten(0, 1) for x in part))
            logits.append(self.match_pairs(image_kv, some)[:, 1].view(num_images, -1))
        return torch.cat(logits, dim=1)

    def decode_logits(self, image_context: ImageReading, text: Texts) -> Tensor:
        """The reading of B images and B texts (B, T) -> (B, T, V) logits of each next token.

        ``[DEC]`` takes the place of ``[CLS]``. A text sees what the queries read, not the image.
        """
        reading = as_reading(image_context)
        batch = matched(text, len(reading.states), self, "decode_logits")
        written = batch.replace_first(self.tokenizer.bos_id)
        return self.Qformer.next_word_logits(reading.prefix, written.ids)

    @property
    def max_positions(self) -> int:
        """The most tokens that a text can have."""
        return self.Qformer.max_length

    @checked_options
    def decoder_of(self, image_tokens: Tensor, num_texts: int, max_length: int) -> QueryDecoder:
        """The decoder bound to images (B, N, C), for any number of texts and tokens."""
        return QueryDecoder(self.Qformer, self.image_context(image_tokens).prefix)

    # ---- LAVIS's calls

    @property
    def query_tokens(self) -> nn.Parameter:
        """(1, Q, D) the learnt queries."""
        return self.Qformer.query_tokens

    def forward_image(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> states of the queries (B, Q, D), and image tokens (B, N, C)."""
        tokens = self.encode_image(image)
        return self.Qformer.query_states(tokens), tokens

    def forward_text(self, text_tokens: TextBatch) -> Tensor:
        """Tokenised texts (``input_ids`` and ``attention_mask``) -> (B, D) states of [CLS]."""
        batch = tokenized(as_text_batch(text_tokens), self, "text_tokens")
        return self.encode_text(batch)[:, 0]

    def compute_itm(self, image_inputs: Tensor, text_ids: Tensor, text_atts: Tensor) -> Tensor:
        """Image tokens (B, N, C) and B tokenised texts -> (B,) logits of "matches".

        Args:
            image_inputs: from ``encode_image``.
            text_ids: (B, T) of ``tokenize``.
            text_atts: (B, T) 1 at each real token.
        """
        as_tokens(image_inputs, self, "image_inputs")
        ids = as_ids(text_ids, len(self.tokenizer), "text_ids")
        mask = as_mask(text_atts, len(ids), ids.shape[1], "text_atts")
        return self.match(image_inputs, TextBatch(ids, mask))[:, 1]

    @checked_options
    @torch.no_grad()
    def extract_features(
        self, samples: Samples, mode: Literal["multimodal", "text", "image"] = "multimodal"
    ) -> Features:
        """Features of a batch, without gradients and dropout.

        ``image_embeds`` (B, Q, D) are states of the queries, and ``multimodal_embeds`` (B, Q, D)
        such states where the queries have seen the text too; the position of a query has no meaning
        by itself. ``text_embeds`` (B, T, D) are states of the text, ``[CLS]`` first. The projected
        ones have unit length at each position: the similarity of an image and a text is the highest
        cosine of a query with ``[CLS]``. Between multimodal features none is defined.

        Texts are padded to the longest of the batch and not cut to ``max_length``.

        Args:
            samples: ``image`` (B, 3, H, W) and ``text_input``, B texts; one of them is enough
                for its own mode.
            mode: ``image``, ``text`` or ``multimodal``.

        Raises:
            ConfigError: another mode, or samples without what the mode reads.
        """
        check_mode(samples, mode)
        with eval_mode(self):
            if mode == "text":
                words = self._whole(as_texts(samples["text_input"], "text_input"))
                states = self.encode_text(words)
                return Features(text_embeds=states, text_embeds_proj=unit(self.text_proj(states)))
            tokens = self.encode_image(images_of(samples, self))
            if mode == "image":
                context = self.image_context(tokens)
                projected = self.context_features(context)
                return Features(image_embeds=context.states, image_embeds_proj=projected)
            text = self._whole(texts_of(samples, len(tokens)))
            return Features(multimodal_embeds=self.Qformer.query_states(tokens, text))

    def _whole(self, texts: list[str]) -> TextBatch:
        """The texts with as many tokens as the tower has positions for."""
        return self.tokenizer.encode(texts, self.max_positions, device=self.device)


@registry.register("model", "blip2_feature_extractor")
@registry.register("model", "blip2")
@describe_arguments
def blip2(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 224,
    tokenizer: str | None = None,
    embed_width: int = 256,
    max_length: int = 32,
    freeze_vision: bool = True,
    losses: LossSpecs | None = None,
) -> Blip2Qformer:
    """The first stage of BLIP-2: a Q-Former that learns from images and texts what to read.

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
    model = Blip2Qformer(**parts, max_length=max_length)
    model.add_losses(losses)
    return model
