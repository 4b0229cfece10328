"""What the filter reads together."""

from __future__ import annotations

import pytest
import torch

from lavis_lite.models import zoo
from lavis_lite.modules.med.attention import Source
from lavis_lite.projects.blip.capfilt.config import Filter
from lavis_lite.projects.blip.capfilt.filter import Pair, TextJudge, folded

WORDS = ["a", "red", "cube", "beside", "two", "green", "spheres"]
PAIRS = [
    Pair(row, " ".join(WORDS[: 1 + (3 * place + row) % 7]))
    for place, row in enumerate([0, 0, 1, 2, 2, 3, 4, 4, 4, 5])
]


@pytest.mark.parametrize("most_texts", [1, 2, 4, 100])
def test_images_with_as_many_texts_share_a_batch_and_each_pair_is_in_one(most_texts):
    batches = list(folded(PAIRS, most_texts))
    assert sorted(place for _, places in batches for place in places) == list(range(len(PAIRS)))
    for rows, places in batches:
        each = len(places) // len(rows)
        assert [PAIRS[place].row for place in places] == [r for r in rows for _ in range(each)]
        assert len(places) <= most_texts


def test_scores_of_uneven_numbers_of_texts_are_those_of_each_alone_and_no_key_is_copied():
    torch.manual_seed(0)
    model = zoo.create_model("blip_image_text_matching", "scenes").eval()
    images = torch.rand(6, 3, *2 * [model.image_size])
    read = []
    match_pairs = model.match_pairs

    def watched(kv: list[Source], texts):
        read.append((kv[0].num_rows, len(texts.ids)))
        return match_pairs(kv, texts)

    model.match_pairs = watched
    with torch.no_grad():
        found = TextJudge(model, Filter("blip_image_text_matching"), 4).score(images, PAIRS)
        tokens = model.encode_image(images)
        for pair, score in zip(PAIRS, found, strict=True):
            logits = model.match(tokens[pair.row : pair.row + 1], [pair.text])
            assert score == pytest.approx(float(logits.softmax(-1)[0, 1]), abs=2e-6)
    assert read[:3] == [(3, 3), (2, 4), (1, 3)]  # images, texts
