"""The metric `judgements`: agreement with people, against arithmetic done by hand."""

import contextlib
import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lavis_lite.errors import ConfigError, DataError
from lavis_lite.metrics.judgements import Judgements

RUNNER = SimpleNamespace(device=torch.device("cpu"), seed=0, autocast=contextlib.nullcontext)


class Scorer(nn.Module):
    """Scores a pair as the number in its text says."""

    def encode_image(self, image):
        return image.flatten(2).mT

    def match(self, image_tokens, text):
        scores = torch.tensor([float(one) for one in text], dtype=torch.float64)
        return torch.stack([torch.zeros_like(scores), torch.logit(scores)], 1)


class Data:
    def __init__(self, rows):
        self.dataset = [{"key": str(n), "image_id": n, **row} for n, row in enumerate(rows)]

    def batches(self, indices):
        for n in indices:
            text = [self.dataset[n]["text_input"]]
            yield {"image": torch.zeros(1, 3, 2, 2), "text_input": text, "index": [n]}


def judged(score, scores, own=False, **more):
    return {"text_input": str(score), "scores": scores, "own": own, **more}


EXPERT = [
    judged(0.1, [1, 1, 2]),
    judged(0.4, [2, 3, 3]),
    judged(0.3, [4, 4, 3]),
    judged(0.8, [4, 4, 4]),
    judged(0.9, [4, 4, 4], own=True),
    judged(0.7, [1, 1, 1]),
]


def kendall(pairs):
    """tau-b and tau-c in %, by counting all pairs of pairs."""
    concordant = discordant = ties_x = ties_y = 0
    for (x, y), (v, w) in itertools.combinations(pairs, 2):
        concordant += (x - v) * (y - w) > 0
        discordant += (x - v) * (y - w) < 0
        ties_x += x == v
        ties_y += y == w
    n = len(pairs)
    total = n * (n - 1) / 2
    smaller = min(len({x for x, _ in pairs}), len({y for _, y in pairs}))
    difference = concordant - discordant
    tau_b = difference / ((total - ties_x) * (total - ties_y)) ** 0.5
    return 100 * tau_b, 100 * 2 * difference / (n**2 * (smaller - 1) / smaller)


def test_taus_rank_every_experts_answer_about_captions_of_other_images():
    result = Judgements().evaluate(Scorer(), Data(EXPERT), RUNNER)
    pairs = [
        (float(row["text_input"]), score)
        for row in EXPERT
        if not row["own"]
        for score in row["scores"]
    ]
    assert result.metrics["itm/tau_b"] == pytest.approx(kendall(pairs)[0])
    assert result.metrics["itm/tau_c"] == pytest.approx(kendall(pairs)[1])
    assert result.counts["judged captions"].used == 6
    assert result.counts["ranked captions"].left_out == {"written for the image": 1}


def test_auc_and_precision_are_of_what_people_accept_on_average():
    figures = Judgements(threshold=0.35).evaluate(Scorer(), Data(EXPERT), RUNNER).metrics
    # accepted: 0.3, 0.8, 0.9; refused: 0.1, 0.4, 0.7 -> 7 of 9 pairs in order
    assert figures["itm/auc"] == pytest.approx(7 / 9)
    assert figures["itm/precision"] == pytest.approx(2 / 4)
    assert figures["itm/recall"] == pytest.approx(2 / 3)


def test_a_crowd_counts_by_its_share_of_yes():
    rows = [
        {"text_input": str(score), "yes": yes, "no": no}
        for score, yes, no in [(0.2, 0, 3), (0.5, 1, 2), (0.4, 3, 0), (0.9, 2, 1)]
    ]
    figures = Judgements().evaluate(Scorer(), Data(rows), RUNNER).metrics
    pairs = [(0.2, 0), (0.5, 1 / 3), (0.4, 1), (0.9, 2 / 3)]
    assert figures["itm/tau_b"] == pytest.approx(kendall(pairs)[0])
    assert figures["itm/auc"] == pytest.approx(3 / 4)


def test_caption_metrics_are_judged_too_and_never_by_the_caption_itself():
    texts = ["a dog runs on grass", "a dog runs on sand today", "a man sits at home", "two cats"]
    references = ["a dog runs on grass", "a brown dog runs on grass"]
    rows = [
        {"text_input": text, "scores": [score] * 3, "own": own, "references": references}
        for text, score, own in zip(texts, [4, 3, 1, 1], [True, False, False, False], strict=True)
    ]
    result = Judgements(scores=["cider_d", "bleu4"]).evaluate(Scorer(), Data(rows), RUNNER)
    own, near, far, _ = result.predictions
    assert own["bleu4"] < 1, "it is compared with the other reference alone"
    assert near["cider_d"] > far["cider_d"]
    assert near["bleu4"] > far["bleu4"]
    assert result.metrics["cider_d/tau_c"] > 0


@pytest.mark.parametrize("names", [["itc"], ["cidr_d"]])
def test_scores_that_cannot_be_had_are_refused(names):
    with pytest.raises(ConfigError, match=r"requires|Did you mean 'cider_d'"):
        Judgements(scores=names).evaluate(Scorer(), Data(EXPERT), RUNNER)


def test_rows_that_nobody_judged_are_no_judgement():
    with pytest.raises(DataError, match="no judgement"):
        Judgements().evaluate(Scorer(), Data([{"text_input": "0.5"}]), RUNNER)
