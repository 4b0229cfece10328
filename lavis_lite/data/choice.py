"""The choice of rows of a dataset: arguments that every dataset has, applied in one place."""

from __future__ import annotations

import math
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Annotated, Any, NamedTuple, TypedDict

import numpy

from lavis_lite.config.annotations import problem_of, seen
from lavis_lite.config.files import spell
from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import ConfigError, DataError, listed, suggest
from lavis_lite.registry.shared_arguments import Argument

Problem = tuple[tuple[str, ...], str]  # the keys inside a value, and what is wrong there


def _limit_problems(limit: int | None) -> Iterator[Problem]:
    if limit is not None and limit < 1:
        yield (), f"{limit}; at least 1, or null for all rows"


def _where_problems(where: Mapping[str, Any] | None) -> Iterator[Problem]:
    for field, wanted in (where or {}).items():
        if isinstance(wanted, Mapping):
            yield from (((field, *inside), text) for inside, text in _range_problems(wanted))


def _range_problems(wanted: Mapping[str, Any]) -> list[Problem]:
    bounds = {key: wanted[key] for key in ("min", "max") if wanted.get(key) is not None}
    problems = [*_unknown_keys(wanted, ("min", "max"))]
    for key, bound in bounds.items():
        if problem_of(bound, float) or math.isnan(bound):
            problems.append(((key,), f"a number is expected, not {seen(bound)}"))
    if not bounds and not problems:
        problems.append(((), "a range of numbers has a min, a max or both"))
    elif len(bounds) == 2 and not problems and bounds["min"] > bounds["max"]:
        problems.append(((), f"min {bounds['min']} is above max {bounds['max']}"))
    return problems


def _fold_problems(fold: Mapping[str, Any] | None) -> Iterator[Problem]:
    if not fold:
        return
    yield from _unknown_keys(fold, ("by", "of", "take"))
    if wrong := problem_of(fold.get("by", "image_id"), str):
        yield ("by",), wrong
    parts, take = fold.get("of", 0), fold.get("take", [])
    parts_listed = isinstance(take, list | tuple | set) and not problem_of([*take], list[int])
    if problem_of(take, int) and not parts_listed:
        yield ("take",), f"a number or a list of numbers is expected, not {seen(take)}"
        return
    taken = _taken(fold)
    if problem_of(parts, int) or parts < 2 or not taken or not taken <= set(range(parts)):
        yield (
            (),
            f"of={parts!r}, take={sorted(taken)}; `of` is a number of parts, 2 or more, `take`"
            " lists some of 0 ... of - 1",
        )


def _slice_problems(ends: Sequence[int | None] | None) -> Iterator[Problem]:
    if ends is not None and len(ends) != 2:
        yield (), f"{ends}; two numbers are expected, [start, stop]"


def _unknown_keys(given: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[Problem]:
    for key in given:
        if key not in known:
            near = suggest(str(key), known)
            yield (str(key),), f"unknown key.{near} Known: {', '.join(known)}"


class Choice(TypedDict, total=False):
    """The arguments of every dataset that choose some of its rows.

    They apply in this order: ``where`` and ``fold``, then ``slice``, then ``limit``.
    """

    limit: Annotated[
        int | None,
        Argument(
            "at most so many rows, the first ones, of what the others leave.",
            check=_limit_problems,
        ),
    ]
    where: Annotated[
        dict[str, Any] | None,
        Argument(
            'rows whose field has a value, `{label: "true"}`, one of a list of values, `{label:'
            " [1, 2]}`, or a number in a range, both ends included, `{score: {min: 0.7, max: 1}}`,"
            ' of which one may be left out. Values are compared as texts: `true` equals `"True"`.'
            " A field that is no number is in no range. Of several fields, all must hold.",
            check=_where_problems,
        ),
    ]
    fold: Annotated[
        dict[str, Any] | None,
        Argument(
            "`{by: image_group, of: 6, take: [0, 1]}`: rows are dealt into `of` parts by a hash of"
            " the field `by` (default image_id), so that rows with an equal value stay together;"
            " the parts in `take` are kept.",
            check=_fold_problems,
        ),
    ]
    slice: Annotated[
        list[int | None] | None,
        Argument(
            "`[start, stop]`: the rows from start to before stop, counted from 0, of what `where`"
            " and `fold` leave; negative numbers count from the end, and null is an end:"
            " `[-100, null]` is the last hundred.",
            check=_slice_problems,
        ),
    ]


class Chosen(NamedTuple):
    """The result of a choice.

    Attributes:
        numbers: (R,) of the rows that are taken, in order; None for all.
        left_out: rule -> rows that it left out.
    """

    numbers: numpy.ndarray | None
    left_out: dict[str, int]


def choose(
    choice: Choice, name: str, count: int, annotation: Callable[[int], dict[str, Any]]
) -> Chosen:
    """Choose rows of a dataset.

    Args:
        choice: the arguments.
        name: of the dataset, for messages.
        count: its rows.
        annotation: the number of a row -> its fields, without the image. A row that raises
            DataError is taken, so that reading it puts it into quarantine.

    Raises:
        TypeError: another argument.
        ConfigError: a value that is none of its argument's.
        DataError: a field that no row has; or no row is left.
    """
    _check(choice)
    where, fold, limit = choice.get("where"), choice.get("fold"), choice.get("limit")
    left_out = Counter[str]()
    numbers: numpy.ndarray | None = None
    if where or fold:
        numbers = _matching(where or {}, fold, name, count, annotation, left_out)
    if (ends := choice.get("slice")) is not None:
        rows = numpy.arange(count) if numbers is None else numbers
        numbers = _part(rows, ends, name)
        left_out["slice"] = len(rows) - len(numbers)
    if limit is not None:
        rows = numpy.arange(count) if numbers is None else numbers
        numbers = rows[:limit]
        left_out["limit"] = len(rows) - len(numbers)
    return Chosen(numbers, dict(+left_out))


def _check(choice: Choice) -> None:
    hints = typing.get_type_hints(Choice, include_extras=True)
    for key, value in choice.items():
        if key not in hints:
            raise TypeError(f"a dataset takes no argument {key!r}.{suggest(key, hints)}")
        plain, argument = typing.get_args(hints[key])
        wrong = problem_of(value, plain)
        for inside, text in [((), wrong)] if wrong else argument.check(value):
            raise ConfigError(f"{spell((key, *inside))}: {text}")


def _part(rows: numpy.ndarray, ends: Sequence[int | None], name: str) -> numpy.ndarray:
    taken = rows[ends[0] : ends[1]]
    if not len(taken):
        spelt = ", ".join("null" if end is None else str(end) for end in ends)
        raise DataError(
            f"{name}: slice: [{spelt}] takes none of {len(rows)} rows, which are numbered 0 ..."
            f" {len(rows) - 1}; it takes those from the first number to before the second"
        )
    return taken


def _matching(
    where: Mapping[str, Any],
    fold: Mapping[str, Any] | None,
    name: str,
    count: int,
    annotation: Callable[[int], dict[str, Any]],
    left_out: Counter[str],
) -> numpy.ndarray:
    """Return the numbers of the chosen rows; count the others by the rule that left them out."""
    by = fold.get("by", "image_id") if fold else None
    parts, take = (fold["of"], _taken(fold)) if fold else (1, {0})
    allows = {field: _condition(wanted) for field, wanted in where.items()}
    values: dict[str, Counter[str]] = {field: Counter() for field in where}
    chosen: list[int] = []
    fields: set[str] = set()
    for number in range(count):
        try:
            row = annotation(number)
        except DataError:
            chosen.append(number)
            continue
        fields.update(row)
        for field in where:
            values[field][_text(row.get(field))] += 1
        other = next((f for f, allow in allows.items() if not allow(row.get(f))), None)
        if other is not None:
            left_out[f"another {other}"] += 1
        elif by and stable_hash(str(row.get(by))) % parts not in take:
            left_out["fold"] += 1
        else:
            chosen.append(number)
    for field in [*where, *filter(None, [by])]:
        if field not in fields:
            raise DataError(
                f"{name}: no row has a field {field!r}.{suggest(field, fields)}"
                f" Fields: {listed(sorted(fields))}"
            )
    if not chosen:
        seen_values = {field: _summary(values[field], where[field]) for field in where}
        raise DataError(
            f"{name}: where={dict(where)}, fold={dict(fold or {})} leave none of {count} rows."
            f" Values seen: {seen_values}"
        )
    return numpy.array(chosen)


def _taken(fold: Mapping[str, Any]) -> set[int]:
    """Return the parts that a fold keeps; one may be written alone."""
    take = fold.get("take", [])
    return {take} if isinstance(take, int) else set(take)


def _condition(wanted: object) -> Callable[[object], bool]:
    """Return the test that a value of ``where`` means."""
    if isinstance(wanted, Mapping):
        low, high = wanted.get("min"), wanted.get("max")
        low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
        return lambda value: (number := _number(value)) is not None and low <= number <= high
    values = wanted if isinstance(wanted, list | tuple | set) else [wanted]
    allowed = {_text(value) for value in values}
    return lambda value: _text(value) in allowed


def _number(value: object) -> float | None:
    """Return a field as a number, also one that a file of texts writes; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, Real | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _summary(counts: Counter[str], wanted: object) -> object:
    """Return what a message says of the values of a field: the commonest, or their range."""
    if isinstance(wanted, Mapping):
        numbers = [n for text in counts if (n := _number(text)) is not None and not math.isnan(n)]
        return f"{min(numbers):g} ... {max(numbers):g}" if numbers else "no numbers"
    return dict(counts.most_common(5))


def _text(value: object) -> str:
    """Return a value as text to compare: `true` in a config equals "true" in a JSON file."""
    return str(value).lower() if isinstance(value, bool | str) else str(value)
