"""The files of an output folder, for those who write them and for the dataset `bootstrapped`.

::

    job.json                         {"source": component of the dataset, "num_shards": N, ...}
    shards/shard-000007.jsonl        a record per sample, see records.py
    shards/shard-000007.tar          images of samples that keep a text, where they are wanted
    shards/shard-000007.done         written last: without it the shard does not exist
    scores/NAME/job.json, shards/    scores that were added later, laid out as the run itself
"""

from __future__ import annotations

JOB = "job.json"
SHARDS = "shards"
SCORES = "scores"
DONE = ".done"
RECORDS = ".jsonl"
IMAGES = ".tar"


def shard_name(number: int) -> str:
    """``shard-000007`` for 7."""
    return f"shard-{number:06d}"
