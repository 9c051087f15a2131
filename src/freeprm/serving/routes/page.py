"""`/`: a page to paste a problem and solutions into, or to look at the scores of a run."""

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field
from starlette.responses import HTMLResponse

from freeprm.errors import DataError, RunFolderError
from freeprm.io.rollouts import read_rollouts
from freeprm.io.runs import read_manifest
from freeprm.report.page import style_sheet
from freeprm.serving.routes.scoring import SelectRequest, selection
from freeprm.serving.selecting import select_among, with_answers
from freeprm.serving.service import Service, service_of
from freeprm.serving.views import fragment
from freeprm.types import Group, group_rollouts

routes = APIRouter()
OPEN = ("/", "/page.css", "/page.js")
"""Need no key: what they hold is in the package."""
_ONLY_OURS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {}}}}
_SHOWN = 80
"""Characters of a problem in the list."""


class ViewRequest(SelectRequest):
    """Responses to show."""

    threshold: float | None = Field(default=None, allow_inf_nan=False)
    """A step whose score is below it breaks its solution."""


@routes.get("/", include_in_schema=False)
async def index() -> Response:
    """The page."""
    return _file("index.html", "text/html")


@routes.get("/page.js", include_in_schema=False)
async def script() -> Response:
    """Its script."""
    return _file("page.js", "text/javascript")


@routes.get("/page.css", include_in_schema=False)
async def style() -> Response:
    """Its style: that of reports, and of its forms."""
    return Response(f"{style_sheet()}\n{_text('page.css')}", media_type="text/css", headers=_ONLY_OURS)


@routes.post("/view", response_class=Response, responses=_HTML)
async def view(asked: ViewRequest, service: Annotated[Service, Depends(service_of)]) -> Response:
    """Scored solutions as HTML, with token rewards if the scorer has them."""
    options = service.options(reward=asked.reward, split=asked.splitter, tokens=bool(service.about.rewards))
    selected = await selection(asked, service, options)
    return HTMLResponse(fragment(selected, threshold=asked.threshold), headers=_ONLY_OURS)


@routes.get("/runs")
def runs(service: Annotated[Service, Depends(service_of)]) -> list[dict[str, Any]]:
    """The finished runs of `freeprm score` under the folder that the server was given, with their scorers."""
    return [{"name": name, "scorers": scorers} for name, scorers in _listed(service).items()]


@routes.get("/runs/problems")
def problems(run: str, scorer: str, service: Annotated[Service, Depends(service_of)]) -> list[dict[str, str]]:
    """The problems of a run."""
    return [
        {"id": group.problem_id, "text": f"{group.problem_id}: {_question(group)[:_SHOWN]}"}
        for group in _groups(service, run, scorer).values()
    ]


@routes.get("/runs/view", response_class=Response, responses=_HTML)
def view_of_run(
    run: str, scorer: str, problem: str, service: Annotated[Service, Depends(service_of)],
    aggregator: str | None = None, threshold: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> Response:  # fmt: skip
    """A problem's scored solutions as HTML."""
    groups = _groups(service, run, scorer)
    if problem not in groups:
        raise DataError(f"{run}: no problem {problem!r}")
    combine = service.aggregator(aggregator or None)
    selected = select_among(with_answers(groups[problem].rollouts), aggregator=combine)
    return HTMLResponse(fragment(selected, threshold=threshold), headers=_ONLY_OURS)


def _listed(service: Service) -> dict[str, list[str]]:
    """Scorers of the finished scoring runs, by the path of each in the server's folder."""
    if service.runs is None:
        return {}
    found = {manifest.parent: _scorers(manifest.parent) for manifest in sorted(service.runs.rglob("manifest.json"))}
    return {folder.relative_to(service.runs).as_posix(): scorers for folder, scorers in found.items() if scorers}


def _scorers(folder: Path) -> list[str]:
    """Names of the files of rows of a finished scoring run; none of another folder."""
    try:
        manifest = read_manifest(folder)
    except RunFolderError:
        return []
    if manifest is None or manifest["stage"] != "score" or manifest.get("status") != "complete":
        return []
    return [file.stem for file in sorted(folder.glob("*.jsonl")) if not file.stem.startswith("_")]


def _groups(service: Service, run: str, scorer: str) -> dict[str, Group]:
    """A run's problems by id; a DataError for a name that `/runs` does not list."""
    if service.runs is None or scorer not in _listed(service).get(run, ()):
        raise DataError(f"no scores {scorer!r} of a run {run!r} here; /runs lists them")
    file = service.runs / run / f"{scorer}.jsonl"
    return _read(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(file: Path, changed: int) -> dict[str, Group]:
    """Args: `changed` is when the file last was."""
    return {group.problem_id: group for group in group_rollouts(read_rollouts([file]).rollouts)}


def _question(group: Group) -> str:
    return group.prompt if isinstance(group.prompt, str) else group.prompt[-1]["content"]


def _text(name: str) -> str:
    return files("freeprm.serving").joinpath("page", name).read_text(encoding="utf-8")


def _file(name: str, kind: str) -> Response:
    return Response(_text(name), media_type=kind, headers=_ONLY_OURS)
