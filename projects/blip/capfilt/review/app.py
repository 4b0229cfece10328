"""The pages of a review and their data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import DataError
from lavis_lite.projects.blip.capfilt.labels import Label, check_labeller
from lavis_lite.projects.blip.capfilt.review.cut_config import write_cut
from lavis_lite.projects.blip.capfilt.review.index import OF, TextIndex
from lavis_lite.projects.blip.capfilt.review.judgements import Judgements, bounds
from lavis_lite.projects.blip.capfilt.review.pictures import Pictures
from lavis_lite.projects.blip.capfilt.review.queue import Choice, queue
from lavis_lite.report.render import TEMPLATES, render

_TEMPLATES = Path(__file__).parent / "templates"
_BATCH = 100  # texts that the page asks for at a time
_KEEP_PICTURES = "private, max-age=600"  # the next one is asked for before it is shown
_LONGEST = 2000  # characters of what a user writes
Values = Mapping[str, Any]


class Review:
    """The answers to the page, as plain values; every error of the user's is a DataError.

    Args:
        index: of the run.
        pictures: its images.
        labeller: the name that the page begins with.
    """

    def __init__(self, index: TextIndex, pictures: Pictures, labeller: str) -> None:
        self.index, self.pictures, self.labeller = index, pictures, labeller
        self.judgements = Judgements(index)

    def run(self, values: Values) -> dict[str, Any]:
        """Return what is known of the run as a whole."""
        index = self.index
        settings = index.records.job.get("settings", {})
        score = next(iter(index.scores), None)
        threshold = settings.get("filter.threshold")
        if score is not None and threshold is None:
            low, high = bounds(index.scores[score])
            threshold = (low + high) / 2
        return {
            "folder": index.folder.name,
            # A part of pictures' addresses: a browser keeps those of this run alone for it.
            "mark": f"{stable_hash(str(index.folder.resolve()), str(index.records.job)):x}",
            "records": index.num_records,
            "texts": index.num_texts,
            "scores": list(index.scores),
            "of": [*OF, *(name for name in index.sources if name not in OF)],
            "reasons": list(index.reasons),
            "score": score,
            "cut": threshold,
            "labeller": self.labeller,
        }

    def queue(self, values: Values) -> dict[str, Any]:
        """Return the next texts of a choice that a labeller has not judged."""
        labeller = check_labeller(_text(values, "labeller"))
        choice = Choice(
            order=_text(values, "order") or "cut",
            score=_text(values, "score") or None,
            cut=_number(values, "cut", 0.0),
            of=_text(values, "of") or "all",
            reason=_text(values, "reason"),
            words=_text(values, "words"),
        )
        numbers = queue(self.index, choice)
        judged = self.judgements.judged_by(labeller)
        left = numbers[~judged[numbers]]
        return {
            "texts": [self.index.place(int(number)) for number in left[:_BATCH]],
            "left": len(left),
            "chosen": len(numbers),
            "judged": int(judged.sum()),
        }

    def pair(self, values: Values) -> dict[str, Any]:
        """Return the texts of a record with their scores, verdicts and labels."""
        number = self._record(values)
        labels = self.judgements.of_record(number)
        return {
            "record": number,
            "key": self.index.keys[number],
            "image_scores": self.index.image_scores(number),
            "texts": [
                {
                    **text._asdict(),
                    "labels": [_shown(label) for label in labels if label.place == place],
                }
                for place, text in enumerate(self.index.texts(number))
            ],
        }

    def image(self, values: Values) -> tuple[bytes, str]:
        """Return the image of a record, and its media type."""
        return self.pictures.encoded(self._record(values))

    def label(self, values: Values) -> dict[str, Any]:
        """Write a label down; return what is shown of the record then."""
        number = self._record(values)
        self.judgements.add(
            number,
            int(_number(values, "place")),
            _text(values, "label"),
            check_labeller(_text(values, "labeller")),
            _text(values, "note"),
        )
        return self.pair(values)

    def cut(self, values: Values) -> dict[str, Any]:
        """Return what a cut is worth, see `Judgements.measures`."""
        limit, of = _number(values, "cut"), _text(values, "of") or "all"
        return self.judgements.measures(_text(values, "score"), limit, of)

    def take(self, values: Values) -> dict[str, Any]:
        """Write the config of the selection that a cut makes."""
        score, of = _text(values, "score"), _text(values, "of") or "all"
        self.index.score(score)
        self.index.of(of)
        path = write_cut(self.index.folder, score, _number(values, "cut"), of)
        return {"path": str(path), "command": f"lavis-lite run --cfg {path}"}

    def _record(self, values: Values) -> int:
        number = int(_number(values, "record"))
        if not 0 <= number < self.index.num_records:
            raise DataError(f"no record {number}; the run has {self.index.num_records:,}")
        return number


def _shown(label: Label) -> dict[str, str]:
    return {name: getattr(label, name) for name in ("label", "labeller", "note")}


def _text(values: Values, name: str) -> str:
    value = values.get(name, "")
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise DataError(f"{name}: a text of at most {_LONGEST} characters is expected")
    return value


def _number(values: Values, name: str, default: float | None = None) -> float:
    value = values.get(name, default)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{name}: a number is expected, not {value!r:.60}") from None
    if not math.isfinite(number):
        raise DataError(f"{name}: {number} is no number to compare with")
    return number


def build_app(review: Review) -> Starlette:
    """Return the application that serves a review; a `Guard` has to stand before it."""
    page = render("review.html.jinja", folder=_TEMPLATES, folder_name=review.index.folder.name)

    def file(path: Path) -> Route:
        return Route(f"/{path.name}", lambda request: FileResponse(path))

    return Starlette(
        routes=[
            Route("/", lambda request: HTMLResponse(page)),
            Route("/favicon.ico", lambda request: Response(status_code=204)),
            *(file(_TEMPLATES / name) for name in ("review.js", "review.css")),
            *(file(TEMPLATES / name) for name in ("charts.css", "page.css")),
            Route("/images/{record:int}", _image(review)),
            *(
                Route(f"/api/{name}", _answer(getattr(review, name)), methods=["GET"])
                for name in ("run", "queue", "pair", "cut")
            ),
            *(
                Route(f"/api/{name}", _answer(getattr(review, name)), methods=["POST"])
                for name in ("label", "take")
            ),
        ]
    )


def _answer(ask: Callable[[Values], dict[str, Any]]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        try:
            if request.method == "POST":
                values = _object(request, await request.body())
            else:
                values = dict(request.query_params)
            return JSONResponse(await run_in_threadpool(ask, values))
        except DataError as error:
            return JSONResponse({"error": str(error)}, 400)

    return endpoint


def _object(request: Request, body: bytes) -> dict[str, Any]:
    """Return the object of a request's body; only pages of our own origin may send this type."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise DataError("a body of type application/json is expected")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise DataError("an object in JSON is expected")
    return values


def _image(review: Review) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        try:
            data, kind = await run_in_threadpool(review.image, request.path_params)
        except (DataError, OSError) as error:
            return JSONResponse({"error": str(error)}, 404)
        return Response(data, media_type=kind, headers={"Cache-Control": _KEEP_PICTURES})

    return endpoint
