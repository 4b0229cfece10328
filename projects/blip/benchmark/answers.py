"""Choosing answers to questions, beside scoring each on repeated question states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite import registry
from lavis_lite.modules.layers.prepack import prepack as prepack_linears
from lavis_lite.projects.blip.benchmark.inputs import BERT, DTYPES, build, images, texts
from lavis_lite.projects.blip.huggingface import as_transformers
from lavis_lite.runners.benchmark.agreement import Difference, of_lists, of_tensors

CLOSE = {"fp32": 1e-4, "bf16": 0.05}  # losses, of about ten for each token


@registry.register("workload", "blip_vqa_rank")
class VqaRank:
    """The best of many answers to each question, from the questions' states on, random weights.

    The baseline scores the same candidates with the text decoder of transformers'
    ``BlipForQuestionAnswering``: each question's states are repeated for each of its candidates,
    and logits over the vocabulary are computed at every place, padding included. Compared are the
    losses that the baseline gives to the answers that either chose: they may be apart by 1e-4 in
    fp32, where the answers must be the same besides, and by 0.05 in bf16, which tells answers that
    are closer than that apart by chance.

    Args:
        type: of ``blip_vqa``: its sizes.
        vocab_size: tokens of the vocabulary.
        image_size: side of the images.
        questions: at a time.
        answers: in the list.
        candidates: answers of each question that are scored whole.
        prepack: our weights (``lavis_lite.modules.layers.prepack``); CPU.
        device, precision: where, and the format of weights and activations on both sides.
    """

    unit = "questions"
    baselines = ("repeated states",)

    def __init__(
        self,
        type: str = "vqav2",
        vocab_size: int = BERT,
        image_size: int = 384,
        questions: int = 4,
        answers: int = 1000,
        candidates: int = 128,
        prepack: bool = True,
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        self.amount, self.precision = questions, precision
        self.candidates = min(candidates, answers)
        dtype = DTYPES[precision]
        self.model = build("blip_vqa", type, vocab_size, image_size=image_size)
        self.model.eval().requires_grad_(False).to(device, dtype)
        if prepack:
            prepack_linears(self.model)
        asked = {
            "image": images(questions, image_size, dtype, device),
            # Of one length: the baseline's decoder looks at the padding of shorter ones as well.
            "text_input": texts(questions, 8, 8),
        }
        with torch.no_grad():
            tokens = self.model.encode_image(asked["image"])
            questions = self.model.tokenize(asked["text_input"])
            self.states, self.mask = self.model.read_questions(tokens, questions)
        # One that stands there twice would be as good in either place.
        self.answers = list(dict.fromkeys(texts(2 * answers, 1, 3, seed=3)))[:answers]
        self.theirs: Any = None
        self.listed: Any = None

    def contender(self, name: str) -> Callable[[], Any]:
        """Each returns (B,) numbers of answers."""
        if name == "ours":
            return self._ours
        whole = as_transformers(self.model)
        self.theirs = whole.text_decoder.to(self.states.device, self.states.dtype)
        # Ours keeps the tokens of a list that it was asked with before.
        self.listed = self.model.tokenize_answers(self.answers).to(self.states.device)
        return self._repeated

    @torch.no_grad()
    def _ours(self) -> Tensor:
        kv = self.model.question_context(self.states)
        return self.model.rank_answers(kv, self.mask, self.answers, self.candidates)

    @torch.no_grad()
    def _repeated(self) -> Tensor:
        batch, each = self.listed, self.candidates
        start = batch.ids[:1, :1].expand(len(self.mask), 1)
        first = self._decode(start, torch.ones_like(start), self.states, self.mask)[:, 0]
        likely = first.float().softmax(-1)[:, batch.ids[:, 1]].topk(each).indices  # (B, K)
        best = self._losses(likely).argmin(dim=1, keepdim=True)
        return likely.gather(1, best)[:, 0]

    @torch.no_grad()
    def _losses(self, numbers: Tensor) -> Tensor:
        """(B, K) losses of the answers with these numbers, by the baseline."""
        ids, mask = (x[numbers.flatten()] for x in self.listed)  # (B * K, A)
        states, seen = (
            x.repeat_interleave(numbers.shape[1], dim=0) for x in (self.states, self.mask)
        )
        logits = self._decode(ids, mask, states, seen)[:, :-1].float()
        targets = ids.masked_fill(mask == 0, -100)[:, 1:]
        losses = F.cross_entropy(
            logits.transpose(1, 2),
            targets,
            label_smoothing=self.model.answer_smoothing,
            reduction="none",
        )
        return losses.sum(dim=1).view(numbers.shape)

    def _decode(self, ids: Tensor, mask: Tensor, states: Tensor, seen: Tensor) -> Tensor:
        """(R, A, V) logits of the next tokens."""
        return self.theirs(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=states,
            encoder_attention_mask=seen,
        ).logits

    def differences(self, baseline: str, ours: Tensor, theirs: Tensor) -> list[Difference]:
        """Compare the losses of the chosen answers, and in fp32 the answers themselves."""
        mine, best = (self._losses(numbers[:, None]) for numbers in (ours, theirs))
        found = [of_tensors("losses", mine, best, tolerance=CLOSE[self.precision])]
        if self.precision == "fp32":
            found.append(of_lists("answers", ours.tolist(), theirs.tolist()))
        return found
