"""Checkpoints: weights in and out of models, and the state from which a run resumes.

checkpointer.py  saves and restores the state of a run
directory.py     the folders of checkpoints, whole or absent
state.py         objects as plain types and back
weights.py       weight files in every published format
load_state.py    tensors into a module, with a report
locate.py        an address -> weight files
pickled.py       weights that others pickled, without running their code
"""

from lavis_lite.checkpoint.checkpointer import (
    Checkpointer,
    NothingToResume,
    read_manifest,
    read_weights,
)

__all__ = ["Checkpointer", "NothingToResume", "read_manifest", "read_weights"]
