"""Datasets, processors and the loader: from files or procedures to batches of tensors."""

from lavis_lite.data.load import load_dataset

__all__ = ["load_dataset"]
