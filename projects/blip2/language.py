"""A Q-Former that tells a language model what is in an image: BLIP-2's second stage.

Dim letters: B images, K candidates per image, F frames, N image tokens, C their width, Q queries, T
text tokens, D width of the language model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lavis_lite.config.calls import checked_options
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.models.base import Losses, VisionLanguageModel
from lavis_lite.models.images import as_tokens, tokens_of
from lavis_lite.models.texts import as_texts, one_each, texts_of
from lavis_lite.models.vqa import checked_answers
from lavis_lite.modules.generation import generate as generate_ids
from lavis_lite.modules.language.causal import CausalLanguage
from lavis_lite.modules.language.loading import Language
from lavis_lite.modules.language.tokens import IGNORED
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.output import Samples
from lavis_lite.modules.samples import optional
from lavis_lite.projects.blip2 import towers
from lavis_lite.projects.blip2.language_formats import LanguageFormats
from lavis_lite.projects.blip2.qformer import QFormer
from lavis_lite.projects.blip2.towers import VisionNorm

ROWS_AT_ONCE = 64  # texts whose logits over the vocabulary are held at a time


class QueriedLanguage(VisionLanguageModel):
    """A vision tower, a Q-Former that reads its tokens, and a language model that is told of them.

    The states of the queries, projected to the width of the language model, stand in front of its
    texts. In training the language model is frozen, and the vision tower may be.

    Args:
        visual_encoder: images (B, 3, H, W) -> tokens (B, N, C).
        ln_vision: normalises the tokens.
        qformer: reads them.
        language: any model of the kind ``language_model``.
        prompt: what texts start from where the samples name no ``prompt``.
        answer_prompt: likewise of answers; ``{}`` stands for the question. "" is the question.
        max_length: tokens that a text is cut to in training.
        max_prompt_length: tokens that a prompt is cut to.
        image_size: side of the square input, or its (height, width).
        kept_elsewhere: prefix of weights that files of this model leave out -> where they are from.
        losses: name -> loss.

    Reference: BLIP-2, https://arxiv.org/abs/2301.12597, section 3.2.
    """

    formats = LanguageFormats()
    text_towers = ("Qformer", "language")
    encode_image = towers.encode_image
    language: Language
    answer_length_penalty = 0.0

    def __init__(
        self,
        visual_encoder: nn.Module,
        ln_vision: VisionNorm,
        qformer: QFormer,
        language: Language,
        *,
        prompt: str = "",
        answer_prompt: str = "",
        max_length: int = 32,
        max_prompt_length: int = 32,
        image_size: ImageSize = 224,
        kept_elsewhere: Mapping[str, str] | None = None,
        losses: Losses | None = None,
    ) -> None:
        super().__init__()
        self.image_size, self.max_length = image_size, max_length
        self.max_prompt_length = max_prompt_length
        self.prompt, self.answer_prompt = prompt.rstrip(), answer_prompt
        self.kept_elsewhere = dict(kept_elsewhere or {})
        self.visual_encoder, self.ln_vision = visual_encoder, ln_vision
        self.Qformer = qformer
        self.language_proj = nn.Linear(qformer.width, language.width)
        self.language = language
        self.add_losses(losses)

    def prefix(self, image_tokens: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """Return what the language model is told of images: (B, Q, D) of (B, N, C) tokens.

        Args:
            image_tokens: of B images.
            prompts: B of them, for a Q-Former that reads them; this one does not.

        Raises:
            ConfigError: other tokens, or not as many prompts.
        """
        tokens = self._tokens(image_tokens)
        if prompts is not None:
            one_each(prompts, len(tokens), "prompts")
        return self.language_proj(self.Qformer.query_states(tokens))

    def text_logits(self, image_tokens: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
        """Return logits (B, T, V) of the samples' texts, and targets (B, T).

        Samples with ``text_output`` (B texts) learn it, given their ``text_input``. Others learn
        ``text_input``; the prompt that it starts with is given.

        Args:
            image_tokens: (B, N, C).
            samples: the batch.

        Raises:
            ConfigError: texts that are none, or not B.
        """
        lengths = (self.max_length, self.max_prompt_length)
        num_images = len(self._tokens(image_tokens))
        texts = texts_of(samples, num_images)
        if (outputs := optional(samples, "text_output")) is not None:
            outputs = one_each(outputs, num_images, "text_output")
            prefix = self.prefix(image_tokens, texts)
            return self.language.text_logits(prefix, texts, outputs, *lengths)
        prefix = self.prefix(image_tokens, [self.prompt] * len(texts))
        if self.language.reads_apart:
            bodies = [text.removeprefix(self.prompt).strip() for text in texts]
            return self.language.text_logits(prefix, [self.prompt] * len(texts), bodies, *lengths)
        logits, targets = self.language.text_logits(prefix, None, texts, *lengths)
        for row, text in enumerate(texts):
            if self.prompt and text.startswith(self.prompt):
                targets[row, : self.prompt_length] = IGNORED
        return logits, targets

    @property
    def prompt_length(self) -> int:  # type: ignore[override]
        """Leading tokens of a text that are the prompt's."""
        if self.language.reads_apart:
            return 0
        return len(cast(CausalLanguage, self.language).prompt_ids(self.prompt, self.max_length))

    @checked_options
    @torch.no_grad()
    def generate(
        self,
        samples: Samples,
        use_nucleus_sampling: bool = False,
        num_beams: int = 5,
        max_length: int = 30,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        length_penalty: float = 1.0,
        num_captions: int = 1,
        temperature: float = 1.0,
        *,
        method: str | None = None,
        seeds: list[int] | None = None,
    ) -> list[str]:
        """Texts about images, prompts removed; without dropout, whatever mode the model is in.

        Args:
            samples: ``image`` (B, 3, H, W), or ``image_tokens`` (B, N, C) where they are known;
                ``prompt``, one for all or a list of B, by default the model's.
            use_nucleus_sampling: sample instead of searching beams (LAVIS's switch).
            num_beams: beams per image; 1 is greedy.
            max_length: most new tokens of a text, prompts not counted.
            min_length: fewest new tokens before the end.
            top_p: smallest probability mass that sampling draws from, in (0, 1].
            repetition_penalty: divides the scores of tokens that were there before; 1 is none.
            length_penalty: exponent of the length that beam scores are divided by.
            num_captions: texts per image; those of beam search differ from each other.
            temperature: of sampling.
            method: ``beam``, ``greedy`` or ``nucleus``; wins over ``use_nucleus_sampling``.
            seeds: one per image; sampled texts depend on it and not on the batch.

        Returns:
            B * num_captions texts, image-major.

        Raises:
            ConfigError: options that contradict each other, more tokens than the language model has
                positions for, or prompts that are not B.
        """
        method = method or ("nucleus" if use_nucleus_sampling else "beam")
        with eval_mode(self):
            tokens = self._image_tokens(samples)
            prompts = prompts_of(samples, self.prompt, len(tokens))
            self._check_lengths(tokens, prompts, max_length=max_length, min_length=min_length)
            return self._write(
                tokens,
                prompts,
                method=method,
                num_beams=num_beams,
                num_return=num_captions,
                max_length=1 + max_length,
                min_length=1 + min_length,
                top_p=top_p,
                temperature=temperature,
                repetition_penalty=repetition_penalty,
                length_penalty=length_penalty,
                seeds=seeds,
            )

    @checked_options
    @torch.no_grad()
    def predict_answers(
        self,
        samples: Samples,
        num_beams: int = 5,
        inference_method: Literal["generate", "rank"] = "generate",
        max_len: int = 10,
        min_len: int = 1,
        num_ans_candidates: int = 128,
        answer_list: list[str] | None = None,
        prompt: str = "",
        length_penalty: float | None = None,
    ) -> list[str]:
        """An answer to each question, without dropout; it does not depend on the batch.

        Args:
            samples: ``image`` or ``image_tokens`` as of ``generate``; ``text_input``, B questions.
            num_beams: ``generate``: beams per question; 1 is greedy.
            inference_method: ``generate`` writes, ``rank`` chooses the most probable of
                ``answer_list``.
            max_len: most new tokens of an answer.
            min_len: fewest new tokens before the end.
            num_ans_candidates: of LAVIS's call; every answer of the list is scored whole here.
            answer_list: ``rank``: the answers to choose from.
            prompt: ``{}`` in it stands for the question; "" is the model's.
            length_penalty: exponent of the length that beam scores are divided by; None: the
                model's published one.

        Returns:
            B answers.

        Raises:
            ConfigError: another method, no answers to rank, or more tokens than the language model
                has positions for.
        """
        form = prompt or self.answer_prompt
        answers = []
        if inference_method == "rank":
            answers = checked_answers(answer_list, num_ans_candidates)
        if num_beams < 1:
            raise ConfigError(f"num_beams: {num_beams}; at least 1")
        with eval_mode(self):
            tokens = self._image_tokens(samples)
            questions = texts_of(samples, len(tokens))
            prompts = [form.replace("{}", text) if form else text for text in questions]
            self._check_lengths(tokens, prompts, max_len=max_len, min_len=min_len)
            if inference_method == "rank":
                best = self._ranks(tokens, prompts, answers)[:, 0]
                return [answers[index] for index in best.tolist()]
            penalty = self.answer_length_penalty if length_penalty is None else length_penalty
            return self._write(
                tokens,
                prompts,
                num_beams=num_beams,
                max_length=1 + max_len,
                min_length=1 + min_len,
                length_penalty=penalty,
            )

    @checked_options
    @torch.no_grad()
    def predict_class(self, samples: Samples, candidates: list[str], n_segments: int = 1) -> Tensor:
        """Rank candidates by their probability behind images and prompts.

        Args:
            samples: ``image`` or ``image_tokens``, and ``prompt``, as of ``generate``.
            candidates: K texts.
            n_segments: of LAVIS's call, parts that the candidates are scored in; the ranks do not
                depend on it.

        Returns:
            (B, K) numbers of candidates, the most probable first.

        Raises:
            ConfigError: no candidates, or prompts that are not B.
        """
        if isinstance(candidates, str):
            raise ConfigError(f"candidates: a list of texts is expected: [{candidates!r}]")
        texts = as_texts(candidates, "candidates")
        if not texts:
            raise ConfigError("candidates: an empty list; at least one text to choose from")
        if n_segments < 1:
            raise ConfigError(f"n_segments: {n_segments}; at least 1")
        with eval_mode(self):
            tokens = self._image_tokens(samples)
            return self._ranks(tokens, prompts_of(samples, self.prompt, len(tokens)), texts)

    def _ranks(self, image_tokens: Tensor, prompts: list[str], texts: list[str]) -> Tensor:
        """Return (B, K) numbers of texts, the most probable behind image and prompt first."""
        prefix = self.prefix(image_tokens, prompts)
        losses = [
            self._losses(prefix[row : row + 1], prompt, texts) for row, prompt in enumerate(prompts)
        ]
        return torch.stack(losses).argsort(dim=-1, stable=True)

    def _losses(self, prefix: Tensor, prompt: str, texts: list[str]) -> Tensor:
        """Return the summed cross-entropy (K,) of texts behind one prefix (1, Q, D)."""
        found = []
        for first in range(0, len(texts), ROWS_AT_ONCE):
            some = texts[first : first + ROWS_AT_ONCE]
            logits, targets = self.language.text_logits(
                prefix.expand(len(some), -1, -1),
                [prompt] * len(some),
                some,
                self.max_length,
                self.max_prompt_length,
            )
            losses = nn.functional.cross_entropy(
                logits.flatten(0, 1).float(),
                targets.flatten(),
                ignore_index=IGNORED,
                reduction="none",
            )
            found.append(losses.view(targets.shape).sum(1))
        return torch.cat(found)

    def _image_tokens(self, samples: Samples) -> Tensor:
        return tokens_of(samples, self)

    def _tokens(self, image_tokens: Tensor) -> Tensor:
        """Return image tokens as they are, of a form that ``prefix`` reads."""
        return as_tokens(image_tokens, self)

    def _check_lengths(self, image_tokens: Tensor, prompts: list[str], **lengths: int) -> None:
        """Refuse the most and the fewest new tokens, by their names, that cannot be written.

        Raises:
            ConfigError: none to write, more than there are positions for, or the fewest above the
                most.
        """
        (most_name, most), (fewest_name, fewest) = lengths.items()
        num_frames = image_tokens.shape[1] if image_tokens.ndim == 4 else 1
        num_vectors = num_frames * self.Qformer.num_queries
        room = self.language.room(num_vectors, prompts, self.max_prompt_length)
        if most < 1:
            raise ConfigError(f"{most_name}: {most}; at least 1 new token")
        if room is not None and most > room:
            raise ConfigError(
                f"{most_name}: {most}; the language model has positions for {room} new tokens "
                f"behind {num_vectors} of the queries and the longest prompt"
            )
        if fewest > most:
            raise ConfigError(f"{fewest_name}: {fewest}; at most {most_name}, {most}")

    def _write(self, image_tokens: Tensor, prompts: list[str], **options: Any) -> list[str]:
        prefix = self.prefix(image_tokens, prompts)
        words = self.language.tokens
        start = torch.full((len(prefix), 1), self.language.start_id, device=prefix.device)
        ids = generate_ids(
            self.language.writer(prefix, prompts, self.max_prompt_length),
            start,
            eos_id=words.end_id,
            pad_id=words.pad_id,
            **options,
        )
        return [words.decode(row[1:]) for row in ids]


def prompts_of(samples: Samples, default: str, count: int) -> list[str]:
    """Return a prompt for each of ``count`` images: of the samples, else the default.

    Raises:
        ConfigError: a list of another length, or prompts that are no texts.
    """
    given = optional(samples, "prompt")
    return one_each(default if given is None else given, count, "prompt")
