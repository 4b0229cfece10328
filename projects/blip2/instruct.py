"""blip2_vicuna_instruct, blip2_t5_instruct: InstructBLIP, whose Q-Former reads the instruction too.

Dim letters: B images, F frames, N image tokens, C their width, Q queries, D width of the language
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.calls import checked_options
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build import describe_arguments
from lavis_lite.models.tensors import as_states, width_of
from lavis_lite.models.texts import as_texts, one_each
from lavis_lite.modules.language.loading import Language
from lavis_lite.modules.output import Samples
from lavis_lite.modules.samples import as_samples
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.modules.text.text_batch import TextBatch, padded
from lavis_lite.modules.text.wordpiece import WordPiece
from lavis_lite.projects.blip2.build_language import build_parts
from lavis_lite.projects.blip2.language import QueriedLanguage
from lavis_lite.projects.blip2.qformer import QFormer
from lavis_lite.projects.blip2.towers import VisionNorm

ADDED = ("[DEC]",)  # of the Q-Former's words beside BERT's
WHOLE = 1 << 16  # tokens of an instruction before it is cut

M = TypeVar("M", bound="QueriedInstruct")


class QueriedInstruct(QueriedLanguage):
    """A model whose queries read the image with the instruction in view.

    Args:
        tokenizer: its words are those of the Q-Former.

    The others are those of ``QueriedLanguage``.

    Reference: InstructBLIP, https://arxiv.org/abs/2305.06500, section 2.
    """

    def __init__(
        self,
        visual_encoder: nn.Module,
        ln_vision: VisionNorm,
        qformer: QFormer,
        language: Language,
        tokenizer: WordPiece,
        **options: Any,
    ) -> None:
        super().__init__(visual_encoder, ln_vision, qformer, language, **options)
        self.tokenizer = tokenizer

    def prefix(self, image_tokens: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """Return what the language model is told of images: (B, Q, D); (B, F * Q, D) of videos.

        Args:
            image_tokens: (B, N, C); of a video (B, F, N, C), whose frames are read each by itself.
            prompts: the B instructions that the queries read too.
        """
        tokens = self._tokens(image_tokens)
        text = self.read(one_each("" if prompts is None else prompts, len(tokens), "prompts"))
        frames = tokens.unbind(1) if tokens.ndim == 4 else [tokens]
        states = [self.Qformer.query_states(frame, text) for frame in frames]
        return self.language_proj(torch.cat(states, dim=1))

    def read(self, prompts: list[str]) -> TextBatch:
        """B instructions as the Q-Former's ids and mask (B, T); of long ones the end is kept."""
        words = self.tokenizer
        rows = []
        for prompt in as_texts(prompts, "prompts"):
            ids = words.encode([prompt], WHOLE).ids[0, 1:-1].tolist()
            rows.append([words.cls_id, *ids[-(self.max_prompt_length - 2) :], words.sep_id])
        return padded(rows, words.pad_id).to(self.device)

    def _image_tokens(self, samples: Samples) -> Tensor:
        batch = as_samples(samples)
        image, known = batch.get("image"), batch.get("image_tokens")
        if known is not None:
            return self._tokens(known)
        if isinstance(image, Tensor) and image.ndim == 5:
            frames = image.to(self.device).transpose(1, 2)  # (B, F, 3, H, W), as LAVIS has videos
            tokens = self.encode_image(frames.flatten(0, 1))
            return tokens.unflatten(0, frames.shape[:2])  # (B, F, N, C)
        return super()._image_tokens(samples)

    def _tokens(self, image_tokens: Tensor) -> Tensor:
        if isinstance(image_tokens, Tensor) and image_tokens.ndim == 4:
            width, maker = width_of(self.visual_encoder), "`encode_image` of its frames"
            return as_states(image_tokens, width, "image_tokens", "B, F, N, C", maker)
        return super()._tokens(image_tokens)

    @checked_options
    def generate(
        self,
        samples: Samples,
        use_nucleus_sampling: bool = False,
        num_beams: int = 5,
        max_length: int = 256,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float = 1.5,
        length_penalty: float = 1.0,
        num_captions: int = 1,
        temperature: float = 1.0,
        *,
        method: str | None = None,
        seeds: list[int] | None = None,
    ) -> list[str]:
        """Replies to instructions about images; the defaults are those that were published.

        Args:
            samples: as of ``QueriedLanguage.generate``; ``image`` may be videos (B, 3, F, H, W).

        The others are those of ``QueriedLanguage.generate``.
        """
        return super().generate(
            samples,
            use_nucleus_sampling,
            num_beams,
            max_length,
            min_length,
            top_p,
            repetition_penalty,
            length_penalty,
            num_captions,
            temperature,
            method=method,
            seeds=seeds,
        )


class Blip2VicunaInstruct(QueriedInstruct):
    """Replies to instructions about images by a causal language model.

    Reference: InstructBLIP, https://arxiv.org/abs/2305.06500, section 2.
    """


class Blip2T5Instruct(QueriedInstruct):
    """Replies to instructions about images by an encoder-decoder.

    Reference: InstructBLIP, https://arxiv.org/abs/2305.06500, section 2.
    """

    answer_length_penalty = -1.0


Instruct = TypeVar("Instruct", bound=QueriedInstruct)


def build(
    model_class: type[M],
    vision: Spec,
    text: Spec,
    language: Spec,
    image_size: ImageSize,
    tokenizer: str | None,
    freeze_vision: bool,
    freeze_language: bool,
    losses: LossSpecs | None,
    **texts: Any,
) -> M:
    """Build a model whose Q-Former reads instructions; the arguments are those of the builders."""
    words = load_tokenizer(tokenizer, ADDED)
    parts = build_parts(
        vision, text, language, image_size, freeze_vision, freeze_language, len(words)
    )
    model = model_class(**parts._asdict(), tokenizer=words, image_size=image_size, **texts)
    model.add_losses(losses)
    return model


@registry.register("model", "blip2_vicuna_instruct")
@describe_arguments
def blip2_vicuna_instruct(
    vision: Spec,
    text: Spec,
    language: Spec,
    image_size: ImageSize = 224,
    tokenizer: str | None = None,
    prompt: str = "",
    answer_prompt: str = "",
    max_length: int = 256,
    max_prompt_length: int = 128,
    freeze_vision: bool = True,
    freeze_language: bool = True,
    losses: LossSpecs | None = None,
) -> Blip2VicunaInstruct:
    """A causal language model that is told of an image by a Q-Former that read the instruction.

    Args:
        text: the Q-Former's component.
        max_length: tokens that a reply is cut to in training.
        max_prompt_length: tokens that an instruction is cut to; its end is kept.

    Reference: InstructBLIP, https://arxiv.org/abs/2305.06500, section 2.
    """
    return build(
        Blip2VicunaInstruct, vision, text, language, image_size, tokenizer, freeze_vision,
        freeze_language, losses, prompt=prompt, answer_prompt=answer_prompt, max_length=max_length,
        max_prompt_length=max_prompt_length,
    )  # fmt: skip


@registry.register("model", "blip2_t5_instruct")
@describe_arguments
def blip2_t5_instruct(
    vision: Spec,
    text: Spec,
    language: Spec,
    image_size: ImageSize = 224,
    tokenizer: str | None = None,
    prompt: str = "",
    answer_prompt: str = "",
    max_length: int = 256,
    max_prompt_length: int = 128,
    freeze_vision: bool = True,
    freeze_language: bool = True,
    losses: LossSpecs | None = None,
) -> Blip2T5Instruct:
    """An encoder-decoder that is told of an image by a Q-Former that read the instruction.

    Args:
        text: the Q-Former's component.
        max_length: tokens that a reply is cut to in training.
        max_prompt_length: tokens that an instruction is cut to.

    Reference: InstructBLIP, https://arxiv.org/abs/2305.06500, section 2.
    """
    return build(
        Blip2T5Instruct, vision, text, language, image_size, tokenizer, freeze_vision,
        freeze_language, losses, prompt=prompt, answer_prompt=answer_prompt, max_length=max_length,
        max_prompt_length=max_prompt_length,
    )  # fmt: skip
