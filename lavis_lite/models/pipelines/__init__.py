"""Tasks in one line: a function from pictures in any form to results, lazily where they stream.

session.py     a loaded model with its processors, for a task
reading.py     pictures of any clear form, read a few ahead
asking.py      a batch of pixels to what a model says of it
base.py        the base of pipelines: inputs, batches, results
generating.py  descriptions and answers
scoring.py     matching, retrieval, zero-shot classification
features.py    features of pictures and texts
build.py       a pipeline by the name of its task
"""

from lavis_lite.models.pipelines.base import Pipeline
from lavis_lite.models.pipelines.build import pipeline

__all__ = ["Pipeline", "pipeline"]
