"""Datasets of files: folders, tables, annotation files, tar shards."""
