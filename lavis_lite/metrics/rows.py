"""The rows of a dataset, each given to a model once, for metrics that judge them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from lavis_lite import distributed
from lavis_lite.errors import DataError, NotFinite
from lavis_lite.metrics.counts import not_finite, row_count, set_aside
from lavis_lite.metrics.finite import ask_each
from lavis_lite.metrics.pairs import evaluating
from lavis_lite.modules.interfaces import Context, EvaluationData
from lavis_lite.modules.output import Samples

Row = dict[str, Any]


def predict_rows(
    model: Any,
    data: EvaluationData,
    runner: Context,
    predict: Callable[[Samples, list[Row]], list[Row]],
) -> list[Row]:
    """Return a model's predictions for every readable row, whatever the batch and world size.

    A row is set aside for which ``predict`` raises NotFinite.

    Args:
        model: put into evaluation mode meanwhile.
        data: the rows.
        runner: device and precision.
        predict: a batch on the device, and its rows as the dataset has them (without images), to
            what is found of each.

    Returns:
        ``key``, ``index`` and what was found of each row, in the order of the dataset, on every
        process.

    Raises:
        DataError: no row can be read.
    """
    found: list[Row] = []
    with evaluating(model, runner):
        for samples, rows in _batches(data, runner):
            for row, part in zip(rows, _predicted(predict, samples, rows), strict=True):
                if part is None:
                    set_aside(data, row["index"], row["key"], not_finite("what is asked for"))
                else:
                    found.append({"key": row["key"], "index": row["index"], **part})
    found = [row for part in distributed.all_gather_object(found) for row in part]
    if not found:
        raise DataError(
            f"nothing to evaluate: none of {len(data.dataset)} rows could be read: "
            f"{row_count(data, []).spell('rows')}"
        )
    return found


def _predicted(
    predict: Callable[[Samples, list[Row]], list[Row]], samples: Samples, rows: list[Row]
) -> list[Row | None]:
    def ask(chosen: list[int]) -> list[Row]:
        if len(chosen) == len(rows):
            return predict(samples, rows)
        return predict(_taken(samples, chosen, len(rows)), [rows[number] for number in chosen])

    return ask_each(ask, len(rows))


def _taken(samples: Samples, chosen: list[int], size: int) -> Samples:
    """Some samples of a batch."""

    def some(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and len(value) == size:
            return value[chosen]
        if isinstance(value, list | tuple) and len(value) == size:
            return [value[number] for number in chosen]
        return value

    return {name: some(value) for name, value in samples.items()}


def refuse_not_finite(found: Tensor, what: str) -> None:
    """Raise NotFinite for the rows of (B, ...) that are no numbers."""
    good = found.isfinite().flatten(1).all(1) if found.ndim > 1 else found.isfinite()
    if not bool(good.all()):
        raise NotFinite(what, (~good).nonzero()[:, 0].tolist())


def _batches(data: EvaluationData, runner: Context) -> Iterator[tuple[Samples, list[Row]]]:
    for samples in data.batches(list(distributed.shard(len(data.dataset)))):
        rows = [row_of(data, int(index)) for index in samples["index"]]
        for name, value in samples.items():
            if isinstance(value, Tensor):
                samples[name] = value.to(runner.device, non_blocking=True)
        yield samples, rows


def row_of(data: EvaluationData, index: int) -> Row:
    """A row with its ``index``, without its images where the dataset can leave them out."""
    dataset: Any = data.dataset
    row = dataset.annotation(index) if hasattr(dataset, "annotation") else dataset[index]
    return {**row, "index": index}
