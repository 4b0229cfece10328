"""The contract of each kind: the inputs and outputs of a registered part.

These texts are the plug-in contract: ``lavis-lite info KIND`` and the docs print them.
``lavis_lite.modules.interfaces`` has what a model can do, as typed Protocols.
"""

from __future__ import annotations

from typing import NamedTuple


class Contract(NamedTuple):
    """The text of a kind's contract and the arguments that the running program supplies."""

    text: str
    runtime: tuple[str, ...] = ()


KINDS: dict[str, Contract] = {
    "model": Contract(
        """A builder of an nn.Module that is composed of built parts.

        Called with the keys of the config's ``model`` section; a builder function annotates the
        class that it returns. ``model(samples)`` returns a ModelOutput with ``loss`` and each
        ``loss_<name>``; a ``forward`` with an argument ``step_info`` is told where the run stands
        (``losses.step_info.StepInfo``). What else it can do is what its class defines. Losses,
        metrics and runners name the capabilities that they require, Protocols of
        ``lavis_lite.modules.interfaces``, and are refused at config time where a member of one is
        missing."""
    ),
    "vision_encoder": Contract(
        """An nn.Module from images (B, 3, H, W) to tokens (B, N, D), with ``width`` = D.

        Optional: ``grid`` (rows, columns) of the patch tokens, ``num_prefix_tokens`` (class and
        register tokens before them; default 0), ``pool(tokens) -> (B, D)`` (default: the class
        token, else the mean of the patches).""",
        runtime=("image_size",),
    ),
    "text_backbone": Contract(
        """An nn.Module from ids (B, T) and mask (B, T) to states (B, T, D), with ``width`` = D.

        Optional: ``max_length``, most tokens of a text (default: any), ``pool(states, mask) ->
        (B, D)`` (default: the first token's state). A backbone that also reads images (``med``)
        takes projected image tokens.""",
        runtime=("vocab_size", "encoder_width"),
    ),
    "language_model": Contract(
        """An nn.Module that writes texts behind a prefix of vectors (B, Q, D), ``width`` = D.

        ``text_logits(prefix, prompts, texts, max_length, max_prompt_length)`` -> logits (B, T, V)
        and their targets (B, T), -100 where nothing is learnt; ``writer(prefix, prompts,
        max_prompt_length)`` -> a decoder for ``lavis_lite.modules.generation``; ``start_id``, the
        token that stands for a text's beginning there; ``reads_apart``, whether a prompt is read
        apart from the text or is its beginning; ``tokens``, with ``end_id``, ``pad_id`` and
        ``decode(ids)``."""
    ),
    "loss": Contract(
        """An nn.Module called with a step's Shared view, returning a scalar in fp32.

        ``requires`` names the capabilities that the model must have, Protocols or single
        attributes. Built with ``model`` (towers and heads in place), of which it keeps no
        reference; its buffers (a queue) belong to it. Optional: ``prior``, the value that guessing
        gives, and the static method ``prior_of(**arguments)``, which tells it of a loss that is
        not built.""",
        runtime=("model",),
    ),
    "dataset": Contract(
        """Map-style: ``len(dataset)`` and ``dataset[i]`` -> dict.

        Keys: ``image`` (PIL image, encoded bytes or a path: not yet decoded; a list of them is a
        video) or ``image0``, ``image1`` ..., ``text_input`` (str), ``image_id`` (rows of one image
        share it), ``key`` (unique str); further fields travel along. An unreadable row raises
        DataError and is quarantined. Optional: ``annotation(i)``, the row without images;
        ``augment(row, rng)``, in training a random variant of the row; ``counts``, a
        `lavis_lite.data.counts.Counts` of the entries of its source; ``problems``, files that could
        not be read, in words."""
    ),
    "processor": Contract(
        """A callable ``processor(item, rng=None) -> item``.

        An image processor turns a PIL image into a float tensor (3, S, S), a text processor a str
        into a str. All randomness comes from ``rng``, a numpy Generator.""",
        runtime=("image_size",),
    ),
    "metric": Contract(
        """An object with ``requires`` and ``evaluate(model, data, runner) -> Evaluation``.

        ``requires`` names the capabilities that the model must have, Protocols or single
        attributes. Every sample counts exactly once, whatever the batch, chunk and world size.
        Optional: ``requires_if``, argument -> (the capabilities that it asks for where it is true,
        what to do instead); for reports, ``title``, ``columns``, ``chief`` and ``counted`` of the
        class, see ``lavis_lite.metrics.columns``."""
    ),
    "runner": Contract(
        """A class built with a validated config; ``run()`` does the work and returns a summary.

        Its ``Config`` dataclass is named in its package's zoo.yaml under ``runner_configs``, so
        that a config file can be checked without importing the runner. Optional:
        ``report_sections(folder, config)``, what a pipeline's page shows about a finished run; of
        ``Config``, ``without_effect``, a class variable: dotted keys that change no result.""",
        runtime=("config",),
    ),
    "scorer": Contract(
        """A class of scores of texts with their images, or of images; ``score(batch) -> list``.

        ``of``: ``text``, then ``score`` gives a value for each of ``batch.pairs``, (row of the
        image, text); or ``image``, a value for each of ``batch.records``. A value is a number or,
        of an image, also a str; None where the score does not apply. ``batch.tokens(model)`` are
        the (B, N, D) image tokens of its ``model``, computed once for all scorers. Optional, of
        the class: ``requires``, the capabilities that the model must have, Protocols or single
        attributes; ``reads``, what else it needs: ``pictures`` or ``files`` of ``batch``, decoded
        or not, or ``captions``; ``span``, the (lowest, highest) value, for histograms; ``parts``,
        name -> span, where a value is a dict of several scores; ``settle(values, rows, shard) ->
        list``, called once a shard with what ``score`` gave for all its pairs. Modules among its
        attributes are a part of the fingerprint.""",
        runtime=("model", "seed", "batch_size"),
    ),
    "workload": Contract(
        """A class of work to be measured; building it prepares inputs and our model, untimed.

        ``unit`` and ``amount``: what a run yields and how much (images, 4). ``baselines``: names of
        other ways of doing the same work, an attribute of the class. ``contender(name)`` makes one
        ready, ``ours`` or a baseline, and returns a callable without arguments that does the work
        once. ``differences(baseline, ours, theirs)`` gives a list of ``Difference``: how far what
        the two returned is apart, and how far it may be. Optional: ``arithmetic = False`` where a
        run's operations say nothing, as of reading files.""",
        runtime=("device", "precision"),
    ),
}
