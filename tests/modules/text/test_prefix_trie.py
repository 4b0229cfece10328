"""The tree of texts: each prefix once, a parent before its children, nothing seen but ancestors."""

from __future__ import annotations

import torch

from lavis_lite.modules.text.prefix_trie import PrefixTrie
from lavis_lite.modules.text.text_batch import padded

# [DEC] a b [SEP] and so on; the second is the beginning of the third, the last stands there twice.
LISTED = [[7, 1, 2, 9], [7, 3, 9], [7, 3, 2, 9], [7, 1, 2, 2, 9], [7, 3, 9], [7, 9]]


def test_each_prefix_is_one_node_and_paths_spell_the_texts() -> None:
    chosen = torch.tensor([[0, 1, 2], [3, 5, 4]])
    trees = PrefixTrie(padded(LISTED, 0)).select(chosen)
    # [DEC]; 1, 3; 1 2, 3 2 -- and [DEC]; 1, 3; 1 2; 1 2 2.
    assert trees.ids.tolist() == [[7, 1, 3, 2, 2], [7, 1, 3, 2, 2]]
    assert trees.positions.tolist() == [[0, 1, 1, 2, 2], [0, 1, 1, 2, 3]]
    for row, texts in enumerate(chosen.tolist()):
        for path, targets, number in zip(trees.paths[row], trees.targets[row], texts, strict=True):
            real = targets >= 0
            assert trees.ids[row, path[real]].tolist() == LISTED[number][:-1]
            assert targets[real].tolist() == LISTED[number][1:]


def test_a_prefix_sees_what_it_begins_with_and_nothing_else() -> None:
    trees = PrefixTrie(padded(LISTED, 0)).select(torch.tensor([[3, 2], [5, 5]]))
    # [DEC]; 1, 3; 1 2, 3 2; 1 2 2
    assert trees.visible[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 0, 1, 0, 1, 0],
        [1, 1, 0, 1, 0, 1],
    ]
    assert trees.visible[1].equal(torch.eye(6, dtype=torch.bool))  # padding sees itself
