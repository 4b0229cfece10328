"""Datasets, processors and the loader: from files or procedures to batches of tensors."""

from lavis_lite.data.by_name import dataset_zoo, load_dataset, load_processor

__all__ = ["dataset_zoo", "load_dataset", "load_processor"]
