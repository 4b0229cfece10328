"""A list of texts as a prefix trie: a prefix that several texts share is read and predicted once.

Dim letters: A texts of the list, C chosen ones, T tokens, B rows, P nodes, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lavis_lite.modules.text.text_batch import TextBatch


class RowTries(NamedTuple):
    """The trie of each row's texts; the last token of a text is predicted, never read.

    ids: (B, P) last tokens of the prefixes; a parent comes before its children.
    positions: (B, P) positions of these tokens in their texts.
    visible: (B, P, P) True where a prefix contains another, or is it.
    paths: (B, C, T - 1) the node of each prefix of a text; 0 beyond its end.
    targets: (B, C, T - 1) the token after each prefix; -100 beyond the end.
    """

    ids: Tensor
    positions: Tensor
    visible: Tensor
    paths: Tensor
    targets: Tensor


class PrefixTrie:
    """The prefix trie of a list of texts, from which the tries of its subsets are taken.

    Args:
        texts: (A, T), all with the same first token.
    """

    def __init__(self, texts: TextBatch) -> None:
        ids, real = texts.ids.cpu(), texts.mask[:, 1:].cpu().bool()
        self._paths = torch.full(real.shape, -1)  # (A, T - 1), numbered by depth
        self._targets = ids[:, 1:].masked_fill(~real, -100)
        tokens: list[Tensor] = []
        positions: list[Tensor] = []
        first, vocab_size = 0, int(ids.max()) + 1
        before = torch.zeros(len(ids), dtype=torch.long)
        for position, has_next in enumerate(real.unbind(1)):
            key = before[has_next] * vocab_size + ids[has_next, position]
            prefix, number = key.unique(return_inverse=True)
            tokens.append(prefix % vocab_size)
            positions.append(torch.full_like(prefix, position))
            self._paths[has_next, position] = before[has_next] = first + number
            first += len(prefix)
        self._tokens, self._positions = torch.cat(tokens), torch.cat(positions)

    def select(self, chosen: Tensor) -> RowTries:
        """Return the trie of each row's texts ``chosen`` (B, C), on the device of ``chosen``."""
        rows = chosen.cpu()  # (B, C)
        paths, targets = self._paths[rows], self._targets[rows]  # (B, C, T - 1)
        nodes_of = [path[path >= 0].unique() for path in paths]  # ascending node numbers, per row
        num_nodes = max(map(len, nodes_of))
        ids = torch.zeros(len(rows), num_nodes, dtype=torch.long)
        positions = torch.zeros_like(ids)
        visible = torch.eye(num_nodes, dtype=torch.bool).repeat(len(rows), 1, 1)
        for row, nodes in enumerate(nodes_of):
            ids[row, : len(nodes)] = self._tokens[nodes]
            positions[row, : len(nodes)] = self._positions[nodes]
            path = paths[row] = torch.searchsorted(nodes, paths[row].clamp(min=nodes[0]))
            real = targets[row] >= 0
            both = (real[:, :, None] & real[:, None, :]).tril()  # (C, T - 1, T - 1)
            text, later, earlier = both.nonzero(as_tuple=True)
            visible[row, path[text, later], path[text, earlier]] = True
        return RowTries(*(x.to(chosen.device) for x in (ids, positions, visible, paths, targets)))
