"""Loading of weights into a model, with a report of what fits and which tensors are tied."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lavis_lite.errors import CheckpointError

log = logging.getLogger(__name__)

SHOWN = 10  # keys of each sort in an error
_WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile prepend
_COUNTERS = re.compile(r"(^|\.)position_ids$")  # 0, 1, 2, ... that older BERT files carry

_DRAWING = {
    getattr(nn.init, f"{name}_")
    for name in (
        "uniform", "normal", "trunc_normal", "kaiming_uniform", "kaiming_normal",
        "xavier_uniform", "xavier_normal", "orthogonal",
    )
} | {torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.erfinv_}  # fmt: skip


class WithoutDrawing(TorchFunctionMode):
    """A context in which parameters are not drawn at random: they keep uninitialised memory.

    It is for a model all of whose weights are about to be loaded; drawing them takes several times
    as long as reading them. Constants are still set, and so are other tensors, because a buffer
    need not be in the file.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWING:
            tensor = args[0] if args else kwargs["tensor"]
            if isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **kwargs)


@dataclass(frozen=True)
class LoadReport:
    """The result of `load_state`; ``str(report)`` is one readable line.

    Attributes:
        missing: keys of the model that the weights lack (a tied copy is not missing).
        unexpected: keys of the weights that the model lacks.
        misshapen: key -> (shape in the weights, shape in the model).
        converted: keys that were renamed or dropped on the way, as ``old -> new``.
        interpolated: keys whose tensor was resized to fit.
        loaded: number of the model's tensors that were filled.
        total: number of the model's tensors.
        elsewhere: prefix of keys that the weights leave out -> where the model has them from.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    converted: list[str] = field(default_factory=list)
    interpolated: list[str] = field(default_factory=list)
    loaded: int = 0
    total: int = 0
    elsewhere: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True if nothing is missing, unexpected or misshapen."""
        return not (self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        parts = [f"{self.loaded} of {self.total} tensors loaded"]
        for name in ("missing", "unexpected", "misshapen", "interpolated", "converted"):
            keys = list(getattr(self, name))
            if keys:
                parts.append(f"{len(keys)} {name} ({_some(keys, 3)})")
        parts += [f"{prefix}* from {source}" for prefix, source in self.elsewhere.items()]
        return "; ".join(parts)


def load_state(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    strict: bool = True,
    adapt: bool = True,
    source: str = "the weights",
) -> LoadReport:
    """Copy weights into a model, all of them or (strict, and they don't fit) none.

    A model that reads other dialects has ``rename_weights(weights) -> weights``, one that reads
    other sizes or parts ``adapt_weights(weights) -> weights``; both are called first. PrefixTrie of
    DistributedDataParallel and torch.compile are removed. A key that is tied to a loaded one is
    not missing, and neither are parts of which the weights have nothing and the model says in
    ``kept_elsewhere``, prefix -> source, that it has them from files of their own.

    Args:
        model: may be wrapped in DistributedDataParallel or compiled.
        weights: key -> tensor, as `read_weights` returns them.
        strict: refuse missing, unexpected and misshapen keys; otherwise load what fits.
        adapt: call these two; a run's own checkpoint needs no adapting.
        source: a name for the weights in errors, such as their path.

    Raises:
        CheckpointError: they don't fit (strict), or two keys that the model ties differ.
    """
    model = bare(model)
    given, converted = _unwrapped(weights)
    adapted = given
    for hook in ("rename_weights", "adapt_weights") if adapt else ():
        if (change := getattr(model, hook, None)) is not None:
            given, adapted = adapted, dict(change(dict(adapted)))
            converted += _renamed(given, adapted)
    expected = _tensors(model.state_dict(keep_vars=True))
    fitting = {k: w for k, w in adapted.items() if k in expected and w.shape == expected[k].shape}
    covered = _covered(expected, fitting, source, type(model).__name__)
    misshapen = {
        k: (tuple(w.shape), tuple(expected[k].shape))
        for k, w in adapted.items()
        if k in expected and k not in fitting
    }
    sources: Mapping[str, str] = getattr(model, "kept_elsewhere", {})
    present = (*covered, *misshapen)
    elsewhere = {p: s for p, s in sources.items() if not any(k.startswith(p) for k in present)}
    absent = [k for k in expected if k not in covered and k not in misshapen]
    report = LoadReport(
        missing=[k for k in absent if not k.startswith(tuple(elsewhere) or ("\0",))],
        unexpected=[k for k in adapted if k not in expected and not _COUNTERS.search(k)],
        misshapen=misshapen,
        converted=converted,
        interpolated=[k for k in adapted if k in given and adapted[k].shape != given[k].shape],
        loaded=len(covered),
        total=len(expected),
        elsewhere=elsewhere,
    )
    if strict and not report.complete:
        raise CheckpointError(_misfit(report, type(model).__name__, source, expected, adapted))
    model.load_state_dict(fitting, strict=False)
    log.log(logging.INFO if report.complete else logging.WARNING, "%s: %s", source, report)
    return report


def bare(model: nn.Module) -> nn.Module:
    """Return the model without the wrappers of DistributedDataParallel and torch.compile."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while True:
        inner = model.module if isinstance(model, wrappers) else getattr(model, "_orig_mod", None)
        if inner is None:
            return model
        model = inner


def unique_tensors(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return each distinct tensor under its first key, and alias -> that key for the others."""
    first: dict[Hashable, str] = {}
    aliases = {}
    for key, tensor in _tensors(state).items():
        name = first.setdefault(_identity(tensor), key)
        if name != key:
            aliases[key] = name
    return {key: state[key] for key in first.values()}, aliases


def _identity(tensor: Tensor) -> Hashable:
    """Return a key that is equal for two tensors with the same view of one storage."""
    if tensor.is_meta or tensor.layout is not torch.strided or not tensor.numel():
        return id(tensor)
    return tensor.device, tensor.dtype, tensor.data_ptr(), tensor.shape, tensor.stride()


def _tensors(state: Mapping[str, object]) -> dict[str, Tensor]:
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{key!r} is a {type(value).__name__}: weights are tensors; keep anything else "
                "as a buffer, or in the training state"
            )
    return dict(state)  # type: ignore[arg-type]


def _unwrapped(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    given, notes = _tensors(weights), []
    while prefix := next(
        (p for p in _WRAPPERS if given and all(k.startswith(p) for k in given)), ""
    ):
        given = {key.removeprefix(prefix): tensor for key, tensor in given.items()}
        notes.append(f"{prefix}* -> *")
    return given, notes


def _renamed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """List the changes of keys: ``old -> new``, ``new`` without an old one, ``old -> dropped``."""
    old = {id(tensor): key for key, tensor in before.items() if key not in after}
    added = {key: id(tensor) for key, tensor in after.items() if key not in before}
    renamed = [f"{old.get(tensor, '')} -> {key}".strip() for key, tensor in added.items()]
    gone = old.keys() - added.values()
    return renamed + [f"{key} -> dropped" for tensor, key in old.items() if tensor in gone]


def _covered(
    expected: Mapping[str, Tensor], fitting: Mapping[str, Tensor], source: str, model: str
) -> set[str]:
    """Return the model's keys that get a value, by their own key or by one they are tied to."""
    groups: dict[Hashable, list[str]] = {}
    for key, tensor in expected.items():
        groups.setdefault(_identity(tensor), []).append(key)
    covered: set[str] = set()
    for keys in groups.values():
        here = [key for key in keys if key in fitting]
        covered.update(keys if here else [])
        for other in here[1:]:
            a, b = fitting[here[0]], fitting[other]
            if a is not b and not torch.equal(a, b.to(a.dtype)):
                raise CheckpointError(
                    f"{source}: {here[0]!r} and {other!r} are one tensor in {model}, "
                    "but have different values here"
                )
    return covered


def _misfit(
    report: LoadReport,
    model: str,
    source: str,
    expected: Mapping[str, Tensor],
    adapted: Mapping[str, Tensor],
) -> str:
    shapes = [
        f"{key} {shape} here, {expected_shape} in the model"
        for key, (shape, expected_shape) in report.misshapen.items()
    ]
    lines = [
        f"{source}: do not fit {model}: of its {report.total} tensors {report.loaded} fit, "
        f"{len(report.missing)} are missing, {len(report.misshapen)} misshapen; "
        f"{len(report.unexpected)} are unexpected"
    ]
    for name, keys in [
        ("missing", report.missing),
        ("unexpected", report.unexpected),
        ("misshapen", shapes),
    ]:
        if keys:
            lines.append(f"  {name}: {_some(keys, SHOWN)}")
    for key in report.missing[:SHOWN]:
        alike = [u for u in report.unexpected if adapted[u].shape == expected[key].shape]
        for close in difflib.get_close_matches(key, alike, n=1, cutoff=0.6):
            lines.append(f"  Did {close!r} mean {key!r}? Their shapes agree.")
            break
    return "\n".join(lines)


def _some(keys: Iterable[str], count: int) -> str:
    keys = list(keys)
    rest = f", ... {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + rest
