"""Configs: one YAML file is one run.

schema.py       the keys of a config: type, default, meaning
loading.py      load, load_and_bind
writing.py      to_dict, to_yaml: what runs write down
lavis.py        configs of LAVIS, told from ours
files.py        YAML with its ``_base_`` files, and which file set a key
overrides.py    ``key=value`` as a tree
resolve.py      ``${key.path}``, ``${stage:NAME}``
validate.py     stage 1: keys, types, names; imports nothing that a config names
annotations.py  whether a value fits a type
bind.py fit.py  stage 2: arguments and capabilities, against the parts; builds nothing
evaluators.py   names of evaluations
image_size.py   sizes of images

A config is checked as early as what it says can be known, and each stage reports all it finds:

- a file that is too large, nested too deeply or includes itself, an override that is not
  ``key=value``: where it is read (files, overrides);
- a config in LAVIS's own format: ``lavis``;
- an interpolation of another form, or of nothing: ``resolve``;
- unknown and missing keys, types, ranges, names and types of models: ``validate``. From here on
  a model has all its arguments, those of its type included (``registry.cards.whole``);
- arguments that a part does not take or lacks, and their types: ``bind``;
- parts that do not fit each other, what losses and metrics require of the model: ``fit``, and the
  check that a part registered with itself (``registry.register(..., check=...)``);
- values that only a part understands (``top_k: 0``): its constructor;
- what only a built model tells: a metric's ``check(model)``, ``runners.train.checks``;
- what only the output folder tells (another run, other settings): the runner.
"""

from lavis_lite.config.bind import bind
from lavis_lite.config.loading import load, load_and_bind
from lavis_lite.config.writing import to_dict, to_yaml

__all__ = ["bind", "load", "load_and_bind", "to_dict", "to_yaml"]
