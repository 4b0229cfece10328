"""Rules of a selection: what each may say, and whether they fit the scores and each other.

In order, each over the texts that passed those before it::

    {score: itm, min: 0.6}                          a threshold; `max` too
    {score: clip, fraction: 0.3}                    the best share of the whole pool
    {score: clip, fraction: 0.3, by: source}        of each stratum: `source`, or a field of rows
    {score: itm, precision: 0.95}                   the threshold that keeps most at a precision
    {kept: true}                                    the verdict of the run's own filter
    {duplicates: images, best: itm, within: 2}      images shown more than once: the best stays
    {duplicates: texts, best: itm}                  equal texts: the best stays
    {most_per_text: 100, best: itm}                 a cap on equal texts

Each may have `of: web | synthetic | all`, the texts that it is about, and thresholds, shares and
precisions `missing: drop | keep`, for texts without the score.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lavis_lite.config.annotations import problem_of
from lavis_lite.errors import ConfigError, suggest

MOST_WITHIN = 7  # of the 64 bits of a perceptual hash
SHA256, PHASH = "sha256", "phash"  # the image scores that tell images apart
_NUMBER = int | float

# Each kind of rule by the key that tells it, with its other keys and the types of all of them.
_KEYS: dict[str, dict[str, Any]] = {
    "threshold": {"score": str, "min": _NUMBER, "max": _NUMBER, "missing": Literal["drop", "keep"]},
    "fraction": {
        "fraction": _NUMBER,
        "score": str,
        "by": str,
        "missing": Literal["drop", "keep"],
    },
    "precision": {
        "precision": _NUMBER,
        "score": str,
        "confidence": _NUMBER,
        "sure": bool,
        "missing": Literal["drop", "keep"],
    },
    "kept": {"kept": bool},
    "duplicates": {"duplicates": Literal["images", "texts"], "best": str, "within": int},
    "most_per_text": {"most_per_text": int, "best": str},
}
GLOBAL = ("fraction", "precision", "duplicates", "most_per_text")


@dataclass(frozen=True)
class Rule:
    """A rule with its defaults filled in; ``said`` is how the config writes it."""

    kind: str
    said: Mapping[str, Any]
    of: str = "all"
    missing: str = "drop"
    score: str | None = None
    min: float | None = None
    max: float | None = None
    fraction: float = 1.0
    by: str | None = None
    precision: float = 1.0
    confidence: float = 0.95
    sure: bool = False
    kept: bool = True
    duplicates: str = ""
    best: str | None = None
    within: int | None = None
    most_per_text: int = 1

    @property
    def title(self) -> str:
        """A short name for tables: ``clip: best 30 % of each source``."""
        about = "" if self.of == "all" else f" ({self.of} texts)"
        return f"{self._decision}{about}"

    @property
    def _decision(self) -> str:
        if self.kind == "threshold":
            low = "" if self.min is None else f"{self.score} ≥ {self.min:g}"
            high = "" if self.max is None else f"{self.score} ≤ {self.max:g}"
            return " and ".join(filter(None, [low, high]))
        if self.kind == "fraction":
            stratum = f" of each {self.by}" if self.by else ""
            return f"{self.score}: best {100 * self.fraction:g} %{stratum}"
        if self.kind == "precision":
            return f"{self.score}: precision {self.precision:g}"
        if self.kind == "kept":
            return "kept by the run's filter" if self.kept else "rejected by the run's filter"
        if self.kind == "most_per_text":
            return f"at most {self.most_per_text:,} of equal texts"
        near = f" within {self.within} bits" if self.within is not None else ""
        return f"duplicate {self.duplicates}{near}"


@dataclass(frozen=True)
class Keep:
    """The number of texts that an image keeps, the best by a score; None keeps all of them.

    ``web_first``: synthetic texts only where no web text passed.
    """

    number: int | None = None
    by: str | None = None
    web_first: bool = False

    @property
    def title(self) -> str:
        """A short name for tables."""
        best = "" if self.number is None else f"best {self.number} by {self.by}"
        return ", ".join(filter(None, ["synthetic if web failed" * self.web_first, best])) or "all"


@dataclass(frozen=True)
class Fusion:
    """A weighted sum of normalised scores."""

    how: Literal["z", "rank"]
    weights: Mapping[str, float]


def parse_rules(rules: list[dict[str, Any]]) -> list[Rule]:
    """Return the rules with their defaults.

    Raises:
        ConfigError: every problem that can be told without the records.
    """
    problems: list[str] = []
    parsed = []
    for number, said in enumerate(rules):
        where = f"rules[{number}]"
        found = _problems_of(said)
        problems += [f"{where}{problem}" for problem in found]
        if not found:
            parsed.append(Rule(kind=_kind(said), said=said, **{k: said[k] for k in said}))
    problems += _contradictions(parsed)
    if problems:
        raise ConfigError("\n".join(problems))
    return parsed


def _kind(said: Mapping[str, Any]) -> str:
    telling = [kind for kind in _KEYS if kind in said]
    return telling[0] if telling else "threshold"


def _problems_of(said: Mapping[str, Any]) -> list[str]:
    telling = [kind for kind in _KEYS if kind in said]
    if len(telling) > 1:
        return [f": {' and '.join(telling)} in one rule; write one rule for each"]
    if not telling and "score" not in said:
        near = [suggest(str(key), [*_KEYS, "score"]) for key in said]
        starts = "score, kept, duplicates or most_per_text"
        return [f": begins with none of {starts}.{''.join(near)}"]
    known = {**_KEYS[_kind(said)], "of": Literal["web", "synthetic", "all"]}
    problems = []
    for key, value in said.items():
        if key not in known:
            text = f".{key}: unknown key.{suggest(str(key), known)} Known: {', '.join(known)}"
            problems.append(text)
        elif problem := problem_of(value, known[key]):
            problems.append(f".{key}: {problem}")
    return problems or _ranges(said)


def _ranges(said: Mapping[str, Any]) -> list[str]:
    problems = []
    kind = _kind(said)
    if kind == "threshold" and "min" not in said and "max" not in said:
        problems.append(": a threshold needs `min` or `max`, or write `fraction` or `precision`")
    if kind in ("fraction", "precision") and "score" not in said:
        problems.append(f".score: missing: the score that the {kind} is of")
    for key in ("fraction", "precision", "confidence"):
        if key in said and not 0 < said[key] < (1 if key == "confidence" else 1.0000001):
            hint = f"; for {said[key]:g} % write {said[key] / 100:g}" if said[key] > 1 else ""
            problems.append(f".{key}: above 0, at most 1, not {said[key]:g}{hint}")
    if said.get("most_per_text", 1) < 1:
        problems.append(f".most_per_text: at least 1, not {said['most_per_text']}")
    if "within" in said and not 0 <= said["within"] <= MOST_WITHIN:
        problems.append(f".within: from 0 to {MOST_WITHIN} bits of the hash, not {said['within']}")
    if "within" in said and said.get("duplicates") == "texts":
        problems.append(".within: of images alone; texts are compared as they are")
    if kind == "duplicates" and said["duplicates"] == "images" and "of" in said:
        problems.append(".of: an image that is there twice goes with all of its texts")
    return problems


def _contradictions(rules: list[Rule]) -> list[str]:
    """Thresholds on one score of the same texts that no text can pass together."""
    problems = []
    bounds: dict[tuple[str | None, str], tuple[float, float]] = {}
    for number, rule in enumerate(rules):
        if rule.kind == "kept":
            for other in rules[:number]:
                same = other.kind == "kept" and "all" in (rule.of, other.of, rule.of)
                if same and other.kept != rule.kept and rule.of == other.of:
                    problems.append(f"rules[{number}]: contradicts rules[{rules.index(other)}]")
        if rule.kind != "threshold":
            continue
        for of in ("web", "synthetic") if rule.of == "all" else (rule.of,):
            low, high = bounds.get((rule.score, of), (float("-inf"), float("inf")))
            low = max(low, rule.min if rule.min is not None else low)
            high = min(high, rule.max if rule.max is not None else high)
            bounds[rule.score, of] = low, high
            if low > high:
                problems.append(
                    f"rules[{number}]: contradicts a rule before it or itself: no {of} text has a "
                    f"{rule.score} of at least {low:g} and at most {high:g}"
                )
                break
    return problems


def parse_keep(keep: object) -> Keep:
    """Return the choice of texts of an image.

    Raises:
        ConfigError: it is none.
    """
    known = ("all", "best", "synthetic_if_web_failed")
    said = {keep: 1 if keep == "best" else None} if isinstance(keep, str) else keep
    if not isinstance(said, Mapping):
        raise ConfigError(f"keep: {keep!r}; write one of {', '.join(known)}")
    choices = [key for key in said if key != "by"]
    if len(choices) != 1 or choices[0] not in known:
        near = "".join(suggest(str(choice), known) for choice in choices)
        raise ConfigError(f"keep: one of {', '.join(known)} is expected, not {keep!r}.{near}")
    number, by = said[choices[0]], said.get("by")
    if number is not None and (not isinstance(number, int) or number < 1):
        raise ConfigError(f"keep.{choices[0]}: how many texts, 1 or more, not {number!r}")
    if by is not None and not isinstance(by, str):
        raise ConfigError(f"keep.by: the name of a score, not {by!r}")
    return Keep(number, by, web_first=choices[0] == "synthetic_if_web_failed")


def parse_fusions(scores: Mapping[str, Any]) -> dict[str, Fusion]:
    """Return the fused scores by name.

    Raises:
        ConfigError: what one of them lacks.
    """
    problems, fusions = [], {}
    for name, said in scores.items():
        where = f"scores.{name}"
        if not isinstance(said, Mapping) or set(said) != {"fuse", "weights"}:
            problems.append(f"{where}: write {{fuse: z, weights: {{SCORE: WEIGHT, ...}}}}")
            continue
        weights = said["weights"]
        if problem := problem_of(said["fuse"], Literal["z", "rank"]):
            problems.append(f"{where}.fuse: {problem}")
        elif not isinstance(weights, Mapping) or not weights:
            problems.append(f"{where}.weights: a number for each score is expected")
        elif wrong := [str(s) for s, w in weights.items() if problem_of(w, float)]:
            problems.append(f"{where}.weights: no number: {', '.join(wrong)}")
        else:
            fusions[name] = Fusion(said["fuse"], {s: float(w) for s, w in weights.items()})
    if problems:
        raise ConfigError("\n".join(problems))
    return fusions


def check_names(
    rules: list[Rule],
    keep: Keep,
    fusions: Mapping[str, Fusion],
    scores: Collection[str],
    image_scores: Collection[str],
) -> None:
    """Check that the records have what rules name.

    Args:
        rules, keep, fusions: of the config.
        scores: of the records' texts and images that are numbers.
        image_scores: all of the images, texts such as hashes included.

    Raises:
        ConfigError: every name that is none, with the nearest one.
    """
    problems = []
    every = [*scores, *fusions]

    def check(name: str | None, where: str, known: Collection[str]) -> None:
        if name is not None and name not in known:
            there = f"Scores of these records: {', '.join(known) or 'none'}"
            problems.append(f"{where}: no score {name!r}.{suggest(name, known)} {there}")

    for name, fusion in fusions.items():
        if name in scores:
            problems.append(f"scores.{name}: the records have a score of this name")
        for part in fusion.weights:
            check(part, f"scores.{name}.weights", scores)
    for number, rule in enumerate(rules):
        check(rule.score, f"rules[{number}].score", every)
        check(rule.best, f"rules[{number}].best", every)
        if rule.duplicates == "images":
            needed = SHA256 if rule.within is None else PHASH
            if needed not in image_scores:
                problems.append(
                    f"rules[{number}].duplicates: the records have no {needed!r} of the images; "
                    "score the run with it first"
                )
    check(keep.by, "keep.by", every)
    if keep.number is not None and keep.by is None and len(every) != 1:
        problems.append(f"keep.by: say the best by which score: {', '.join(every) or 'none here'}")
    if problems:
        raise ConfigError("\n".join(problems))
