"""Answers to questions about images: written word by word, or chosen from a list."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Literal

import torch
from torch import Tensor, nn

from lavis_lite.config.calls import checked_options
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError, NotFinite
from lavis_lite.models.base import Losses, Texts
from lavis_lite.models.images import as_tokens, tokens_of
from lavis_lite.models.multimodal import GroundedModel
from lavis_lite.models.tensors import as_context, as_mask, as_states, as_width, rows_in
from lavis_lite.models.texts import as_texts, texts_of, tokenized
from lavis_lite.modules.generation import generate
from lavis_lite.modules.generation.rules import Rules
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.med.attention import KeyValue, select
from lavis_lite.modules.med.decoder import GroundedDecoder
from lavis_lite.modules.med.model import Med, MedDecoder
from lavis_lite.modules.output import Samples
from lavis_lite.modules.text.prefix_trie import PrefixTrie, RowTries
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.modules.text.wordpiece import WordPiece

TOKENS_AT_ONCE = 2048  # tokens whose logits over the vocabulary are held at a time


class Answering(GroundedModel):
    """A text encoder that reads questions with their images, and a decoder that answers.

    The decoder looks at the states of the question, not at the image. Samples to train on have
    ``image`` (B, 3, H, W), ``text_input`` (B questions) and answers: of each question a list in
    ``answers`` and their ``weights``; or, as LAVIS collates them, all in one list ``answer``, with
    ``weight`` and ``n_answers`` per question.

    Args:
        visual_encoder, text_encoder, tokenizer, image_size, max_length: as of ``GroundedModel``.
        text_decoder: looks at states of the text encoder.
        losses: name -> loss.
    """

    answer_smoothing: float = 0.1  # of the targets that ranked answers are scored against

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_encoder: Med,
        tokenizer: WordPiece,
        text_decoder: MedDecoder,
        *,
        image_size: ImageSize,
        max_length: int,
        losses: Losses | None = None,
    ) -> None:
        super().__init__(
            visual_encoder, text_encoder, tokenizer, image_size=image_size, max_length=max_length
        )
        self.text_decoder = text_decoder
        # The last list of answers that was asked with.
        self._listed: tuple[list[str], TextBatch, PrefixTrie] | None = None
        self.add_losses(losses)

    @checked_options
    @torch.no_grad()
    def predict_answers(
        self,
        samples: Samples,
        num_beams: int = 3,
        inference_method: Literal["rank", "generate"] = "rank",
        max_len: int = 10,
        min_len: int = 1,
        num_ans_candidates: int = 128,
        answer_list: Sequence[str] | None = None,
        *,
        length_penalty: float = 1.0,
        attend_padding: bool = False,
    ) -> list[str]:
        """An answer to each question, without dropout; it does not depend on the batch.

        Args:
            samples: ``image`` (B, 3, H, W), or ``image_tokens`` (B, N, D) where they are known;
                ``text_input``, B questions.
            num_beams: ``generate``: beams per question; 1 is greedy.
            inference_method: ``rank`` chooses from ``answer_list``, ``generate`` writes.
            max_len: ``generate``: most tokens of an answer, the start token included.
            min_len: ``generate``: fewest tokens of an answer, the start token included.
            num_ans_candidates: ``rank``: how many answers, by the probability of their first
                token, are scored whole.
            answer_list: ``rank``: the answers to choose from.
            length_penalty: ``generate``: exponent of the length that beam scores are divided by.
            attend_padding: ``generate``: let the decoder look at the padding of short questions,
                as the published code does; then an answer depends on the longest question of
                its batch.

        Returns:
            B answers.

        Raises:
            ConfigError: another method, no answers to rank, or more tokens than the tower holds.
        """
        self._check_writing(num_beams, max_len, min_len, length_penalty)
        answers = []
        if inference_method == "rank":
            answers = checked_answers(answer_list, num_ans_candidates)
        with eval_mode(self):
            tokens = tokens_of(samples, self)
            questions = self.tokenize(texts_of(samples, len(tokens)))
            states, mask = self.read_questions(tokens, questions)
            kv = self.question_context(states)
            if inference_method == "rank":
                chosen = self.rank_answers(kv, mask, answers, num_ans_candidates)
                return [answers[number] for number in chosen.tolist()]
            if attend_padding:
                mask = torch.ones_like(mask)
            return self._write_answers(kv, mask, num_beams, max_len, min_len, length_penalty)

    def read_questions(self, image_tokens: Tensor, text: Texts) -> tuple[Tensor, Tensor]:
        """(B, N, D) and B questions -> their states (B, T, D), the images seen, and their mask."""
        batch = tokenized(text, self)
        seen = self.text_tower.image_context(as_tokens(image_tokens, self), batch.ids.shape[1])
        return self.read(seen, batch), batch.mask

    def question_context(self, states: Tensor) -> list[KeyValue]:
        """(B, T, D) states of questions -> the keys and values that answers look at, per layer."""
        return self.text_decoder.bert.project(
            as_states(states, self.text_tower.width, "states", maker="`read_questions`")
        )

    def tokenize_answers(self, answers: str | Sequence[str]) -> TextBatch:
        """Answers to ids and mask (A, T), ``[DEC]`` first."""
        limit = self.text_decoder.bert.max_length
        text = self.tokenizer.encode(as_texts(answers, "answers"), limit, device=self.device)
        return text.replace_first(self.tokenizer.bos_id)

    def answer_states(self, context: list[KeyValue], mask: Tensor, answers: TextBatch) -> Tensor:
        """States from which the tokens of answers are predicted.

        Args:
            context: of B questions, from ``question_context``.
            mask: (B, T) of the questions.
            answers: (K * B, A) K answers per question, question-major; nothing is repeated.

        Returns:
            (K * B, A - 1, D), of which the i-th predicts token i + 1.
        """
        as_context(context, len(self.text_decoder.bert.fusion_layers), "context")
        as_mask(mask, rows_in(context), context[0].key.shape[-2])
        answers = answers if isinstance(answers, TextBatch) else self.tokenize_answers(answers)
        if len(tokenized(answers, self, "answers").ids) % len(mask):
            raise ConfigError(f"answers: {len(answers.ids)} of them for {len(mask)} questions")
        states = self.text_decoder.bert(
            answers.ids, answers.mask, mode="decoder", image_kv=context, image_mask=mask
        )
        return states[:, :-1]

    def word_logits(self, states: Tensor) -> Tensor:
        """(M, D) of ``answer_states`` -> (M, V) logits, fp32."""
        return self.text_decoder.cls(
            as_width(states, self.text_decoder.bert.width, "states", "`answer_states`")
        ).float()

    @checked_options
    def rank_answers(
        self, kv: list[KeyValue], mask: Tensor, answers: Sequence[str], num_candidates: int
    ) -> Tensor:
        """The number of the best answer to each question, (B,).

        The answers whose first tokens are the likeliest are scored whole, by label-smoothed
        likelihood: what several of them begin with is read once, and the word after it predicted
        once. Questions are taken a few at a time, so that memory is bounded.

        Args:
            kv: ``text_decoder.bert.project`` of the states of B questions.
            mask: (B, T) of the questions.
            answers: what to choose from.
            num_candidates: how many are scored whole.
        """
        answers = checked_answers(answers, num_candidates)
        as_context(kv, len(self.text_decoder.bert.fusion_layers), "kv")
        as_mask(mask, rows_in(kv), kv[0].key.shape[-2])
        batch, prefixes = self._tokenize_list(answers)
        num_candidates = min(num_candidates, len(answers))
        start = batch.ids[:1, :1].expand(len(mask), 1)
        states = self.text_decoder.bert(start, mode="decoder", image_kv=kv, image_mask=mask)
        first = self.text_decoder.cls(states[:, -1]).float().softmax(-1)  # (B, V)
        candidates = first[:, batch.ids[:, 1]].topk(num_candidates).indices  # (B, K)
        most = int(batch.mask.sum(1)[candidates].sum(1).max())  # tokens of a question's candidates
        chosen = []
        for rows in torch.arange(len(mask), device=mask.device).split(
            max(1, TOKENS_AT_ONCE // most)
        ):
            trees = prefixes.select(candidates[rows])
            losses = self._tree_losses(select(kv, rows), mask[rows], trees)
            if not bool(losses.isfinite().all()):
                bad = ~losses.isfinite().all(1)
                raise NotFinite("the probability of an answer", rows[bad].tolist())
            best = losses.argmin(1, keepdim=True)
            chosen.append(candidates[rows].gather(1, best)[:, 0])
        return torch.cat(chosen)

    def _tree_losses(self, kv: list[KeyValue], mask: Tensor, trees: RowTries) -> Tensor:
        """(B, K) summed cross-entropy of the texts of trees, each prefix read once."""
        states = self.text_decoder.bert(
            trees.ids,
            trees.visible,
            mode="decoder",
            image_kv=kv,
            image_mask=mask,
            positions=trees.positions,
        )
        num_rows, num_nodes = trees.ids.shape
        nodes = trees.paths + num_nodes * torch.arange(num_rows, device=mask.device)[:, None, None]
        real = trees.targets >= 0
        nodes, targets = nodes[real], trees.targets[real]  # (E,) of every token to be predicted
        losses = states.new_zeros(len(nodes), dtype=torch.float32)
        for first, part in zip(
            range(0, num_rows * num_nodes, TOKENS_AT_ONCE),
            states.flatten(0, 1).split(TOKENS_AT_ONCE),
            strict=True,
        ):
            logits = self.text_decoder.cls(part).float()
            here = (nodes >= first) & (nodes < first + len(part))
            node = nodes[here] - first
            # Cross-entropy with smoothed targets, of logits: their log-sum less what is expected.
            true, others = logits[node, targets[here]], logits.mean(-1)[node]
            expected = true.lerp(others, self.answer_smoothing)
            losses[here] = logits.logsumexp(-1)[node] - expected
        return losses.new_zeros(real.shape).masked_scatter(real, losses).sum(-1)

    def _tokenize_list(self, answers: list[str]) -> tuple[TextBatch, PrefixTrie]:
        """An evaluation asks with the same thousands of answers again and again."""
        if self._listed is None or self._listed[0] != answers:
            batch = self.tokenize_answers(answers)
            self._listed = list(answers), batch, PrefixTrie(batch)
        return self._listed[1].to(self.device), self._listed[2]

    def _check_writing(
        self, num_beams: int, max_len: int, min_len: int, length_penalty: float
    ) -> None:
        """Refuse what answers cannot be written with, whether they are written or ranked."""
        rules = Rules(
            "beam", num_beams, 1, max_len, min_len, 1.0, 0, 1.0, 1.0, length_penalty,
            self.tokenizer.sep_id, self.tokenizer.pad_id,
        )  # fmt: skip
        rules.check(prompt_length=1)
        if max_len > self.text_decoder.bert.max_length:
            raise ConfigError(
                f"max_len: {max_len}; the text tower has {self.text_decoder.bert.max_length} "
                "positions (model.text.max_length)"
            )

    def _write_answers(
        self,
        kv: list[KeyValue],
        mask: Tensor,
        num_beams: int,
        max_len: int,
        min_len: int,
        length_penalty: float,
    ) -> list[str]:
        start = torch.full((len(mask), 1), self.tokenizer.bos_id, device=mask.device)
        ids = generate(
            GroundedDecoder(self.text_decoder, kv, mask),
            start,
            num_beams=num_beams,
            max_length=max_len,
            min_length=min_len,
            length_penalty=length_penalty,
            eos_id=self.tokenizer.sep_id,
            pad_id=self.tokenizer.pad_id,
        )
        return [self.tokenizer.decode(row[1:]) for row in ids]


def checked_answers(answers: Sequence[str] | None, num_candidates: int) -> list[str]:
    """Return the answers to choose from as a list.

    Raises:
        ConfigError: no list of texts, or no candidates.
    """
    if isinstance(answers, str):
        raise ConfigError(f"answer_list: a list of answers is expected: [{answers!r}]")
    if answers is None or (isinstance(answers, Sized) and not len(answers)):
        raise ConfigError("answer_list: `rank` chooses from it; give one, or use `generate`")
    found = as_texts(answers, "answer_list")
    wrong = next((one for one in found if not one.strip()), None)
    if wrong is not None:
        raise ConfigError(f"answer_list: {wrong!r} is no answer; each is a text that is not empty")
    if num_candidates < 1:
        raise ConfigError(f"num_ans_candidates: {num_candidates}; at least 1")
    return found
