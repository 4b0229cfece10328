"""Answers to questions about images: written word by word, or chosen from a list."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite.errors import ConfigError, suggest
from lavis_lite.losses.answers import Opinion
from lavis_lite.models.encoders import texts_of
from lavis_lite.models.multimodal import Reading
from lavis_lite.modules.generation import generate
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.med.attention import KeyValue, select
from lavis_lite.modules.med.decoder import GroundedDecoder
from lavis_lite.modules.med.model import MedDecoder
from lavis_lite.modules.output import Samples
from lavis_lite.modules.text.prefix_trie import PrefixTrie, RowTries
from lavis_lite.modules.text.text_batch import TextBatch

METHODS = ("rank", "generate")
TOKENS_AT_ONCE = 2048  # tokens whose logits over the vocabulary are held at a time


class Answering(Reading):
    """Questions read with their images, and a decoder that answers from what was read.

    Needs ``text_decoder`` besides.
    """

    text_decoder: MedDecoder
    answer_smoothing: float = 0.1  # of the targets that ranked answers are scored against
    device: torch.device
    _listed: tuple[list[str], TextBatch, PrefixTrie] | None = None  # the last list of answers

    @torch.no_grad()
    def predict_answers(
        self,
        samples: Samples,
        num_beams: int = 3,
        inference_method: Literal["rank", "generate"] = "rank",
        max_len: int = 10,
        min_len: int = 1,
        num_ans_candidates: int = 128,
        answer_list: list[str] | None = None,
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
        if inference_method not in METHODS:
            raise ConfigError(
                f"inference_method: {inference_method!r}.{suggest(inference_method, METHODS)} "
                f"Known: {', '.join(METHODS)}"
            )
        if inference_method == "rank" and not answer_list:
            raise ConfigError("answer_list: `rank` chooses from it; give one, or use `generate`")
        with eval_mode(self):
            states, mask = self.read_questions(samples)
            kv = self.text_decoder.bert.project(states)
            if inference_method == "rank":
                chosen = self.rank_answers(kv, mask, answer_list or [], num_ans_candidates)
                return [(answer_list or [])[number] for number in chosen.tolist()]
            if attend_padding:
                mask = torch.ones_like(mask)
            return self._write_answers(kv, mask, num_beams, max_len, min_len, length_penalty)

    def read_questions(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """The states (B, T, D) of questions that have looked at their images, and their mask."""
        tokens = samples.get("image_tokens")
        if tokens is None:
            tokens = self.encode_image(samples["image"].to(self.device))
        text = self.tokenize(texts_of(samples, len(tokens)))
        seen = self.text_tower.image_context(tokens, text.ids.shape[1])
        return self.read(seen, text), text.mask

    def tokenize_answers(self, answers: list[str]) -> TextBatch:
        """Answers to ids and mask (A, T), ``[DEC]`` first."""
        limit = self.text_decoder.bert.max_length
        text = self.tokenizer.encode(answers, limit, device=self.device)
        return text.replace_first(self.tokenizer.bos_id)

    def answer_losses(
        self,
        kv: list[KeyValue],
        mask: Tensor,
        answers: TextBatch,
        label_smoothing: float | None = None,
        opinion: Opinion | None = None,
    ) -> Tensor:
        """How badly answers fit their questions.

        Args:
            kv: ``text_decoder.bert.project`` of the states of B questions.
            mask: (B, T) of the questions.
            answers: (K * B, A) K answers per question, question-major; nothing is repeated.
            label_smoothing: weight of the uniform distribution in the targets, in [0, 1); by
                default the model's.
            opinion: of a momentum copy, to be mixed into the targets.

        Returns:
            (K * B,) cross-entropy, summed over each answer's tokens.
        """
        smoothing = self.answer_smoothing if label_smoothing is None else label_smoothing
        real = answers.mask[:, 1:].bool()  # what is to be predicted
        states = _answer_states(self.text_decoder, kv, mask, answers)[real]
        targets = answers.ids[:, 1:][real]
        if opinion is not None:
            with torch.no_grad():
                theirs = _answer_states(opinion.decoder, opinion.kv, opinion.mask, answers)[real]
        losses = []
        for part in torch.arange(len(targets), device=targets.device).split(TOKENS_AT_ONCE):
            logits = self.text_decoder.cls(states[part]).float()
            loss = F.cross_entropy(
                logits, targets[part], label_smoothing=smoothing, reduction="none"
            )
            if opinion is not None:
                with torch.no_grad():
                    soft = opinion.decoder.cls(theirs[part]).float().softmax(-1)
                distilled = F.cross_entropy(logits, soft, reduction="none")
                loss = (1 - opinion.share) * loss + opinion.share * distilled
            losses.append(loss)
        rows = real.nonzero()[:, 0]
        total = torch.zeros(len(real), device=states.device)
        return total.index_add(0, rows, torch.cat(losses)) if losses else total

    def rank_answers(
        self, kv: list[KeyValue], mask: Tensor, answers: list[str], num_candidates: int
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
            best = losses.argmin(1, keepdim=True)
            chosen.append(candidates[rows].gather(1, best)[:, 0])
        return torch.cat(chosen)

    def _tree_losses(self, kv: list[KeyValue], mask: Tensor, trees: RowTries) -> Tensor:
        """What ``answer_losses`` gives for the texts of trees, each prefix read once: (B, K)."""
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

    def _write_answers(
        self,
        kv: list[KeyValue],
        mask: Tensor,
        num_beams: int,
        max_len: int,
        min_len: int,
        length_penalty: float,
    ) -> list[str]:
        if max_len > self.text_decoder.bert.max_length:
            raise ConfigError(
                f"max_len: {max_len}; the text tower has {self.text_decoder.bert.max_length} "
                "positions (model.text.max_length)"
            )
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


def _answer_states(
    decoder: MedDecoder, kv: list[KeyValue], mask: Tensor, answers: TextBatch
) -> Tensor:
    """(K * B, A - 1, D) states from which the tokens after the first are predicted."""
    states = decoder.bert(answers.ids, answers.mask, mode="decoder", image_kv=kv, image_mask=mask)
    return states[:, :-1]
