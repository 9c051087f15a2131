"""Files of rows to rollouts and back: the columns that freeprm reads and writes, and the one reader of any format.

    problem_id, sample_idx, prompt, response, answer, pred, correct, truncated, scorer, step_scores, score

Every other column is carried along untouched. Another source's names, or paths into its columns, are mapped:
{"correct": "label", "step_scores": "output.step_scores"}; the source's own column `correct` is then carried along as
`source_correct`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import ValidationError

from freeprm.errors import ConfigError, RecordError
from freeprm.io import plugins
from freeprm.io.columns import CARRIED, COLUMNS, OurColumns, found_in
from freeprm.io.config import suggestion
from freeprm.io.files import read_rows
from freeprm.io.rows import OnBad, Row, Source, check_columns, mapped, renamed
from freeprm.types import Problem, Prompt, Rollout

OURS = "rows"
"""The format of our own rows, in which nothing is lost."""


class Rollouts(NamedTuple):
    """What was read and what was skipped."""

    rollouts: list[Rollout]
    skipped: Counter[str]
    """Broken records left out, by reason; empty unless `on_bad` is "skip"."""
    n_rows: int
    """Rows read, broken ones included."""
    formats: dict[Path, str]
    """By input."""


class RowFormat(Protocol):
    """The reading half of `formats.base.Format`."""

    def recognises(self, row: Row) -> bool:
        """Whether a row looks like one of this format; true for at most one format."""
        ...

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The rollouts of one row. `sample_idx` counts inside the row; the reader continues it across rows.

        A format whose ids are unique for each scorer sets `unique_ids = True`.

        Raises:
            RecordError: the row is broken; names the file, the line, the field, and what was expected.
        """
        ...


def read_rollouts(
    paths: Iterable[Path],
    *,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    require: Iterable[str] = ("response",),
    expect: Iterable[str] = (),
    formats: Mapping[Path, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Rollouts:
    """Rollouts from files or run folders, in their order.

    A row of ours without `sample_idx` is numbered by its place among the rows of its problem and scorer; samples in
    other formats are numbered from row to row and from file to file.

    Args:
        paths: files, folders or hub names, as `read_rows` takes them.
        columns: our column name, or the format's -> the name in the rows.
        on_bad: stop at the first broken record, or leave it out and count it.
        require: columns that every row of ours must have, not null, besides `problem_id` and `prompt`.
        expect: columns that at least one row must have, e.g. `correct` for training.
        formats: by path, for inputs that are not our rows; `formats._reading` infers them from the first row.
        options: fields of those formats, e.g. {"threshold": 0.5}.

    Raises:
        ConfigError: `columns` names a column that we do not have, or `options` an unknown option.
        PluginError: no format of this name.
        RecordError: names the file, the line, the field, and what was expected.
    """
    paths = list(paths)
    named = {path: (formats or {}).get(path, OURS) for path in paths}
    loaded: dict[str, RowFormat] = {
        name: plugins.built("formats", name, [options or {}]) for name in set(named.values()) - {OURS}
    }
    reader = _Reader(_checked(columns or {}, ours=OURS in named.values()), ("problem_id", "prompt", *require))
    rollouts: list[Rollout] = []
    skipped: Counter[str] = Counter()
    n_rows = 0
    for path in paths:
        ours = named[path] == OURS
        take: Callable[[Row, Source], list[Rollout]] = (
            reader.of_ours if ours else partial(reader.of_format, loaded[named[path]])
        )
        for source, row in read_rows(path):
            n_rows += 1
            try:
                if isinstance(row, RecordError):
                    raise row
                rollouts += take(row, source)
            except RecordError as error:
                if on_bad == "raise":
                    raise
                skipped[error.reason] += 1
    if not rollouts:
        reasons = "; ".join(f"{count} skipped: {reason}" for reason, count in skipped.items())
        raise RecordError(f"{', '.join(map(str, paths))}: no usable record ({reasons or 'there is none at all'})")
    for name in expect:
        if all(getattr(rollout, name) is None for rollout in rollouts):
            raise reader.missing_everywhere(name)
    return Rollouts(rollouts, skipped, n_rows, named)


def rollout_of(row: Row, source: Source) -> Rollout:
    """The rollout of one row of ours, taken by itself; a RecordError if the row is broken."""
    (rollout,) = _Reader({}, ("problem_id", "prompt", "response")).of_ours(row, source)
    return rollout


def rollout_row(rollout: Rollout) -> Row:
    """The row of a rollout: our columns that are set, then the others."""
    row: Row = {}
    for name in COLUMNS:
        value = getattr(rollout, name)
        if value is not None and not (name == "truncated" and value is False):
            row[name] = list(value) if isinstance(value, tuple) else value
    return {**row, **{key: value for key, value in rollout.extra.items() if key not in row}}


def problem_row(problem: Problem) -> Row:
    """The row of a problem."""
    prompt = list(problem.prompt) if isinstance(problem.prompt, tuple) else problem.prompt
    row: Row = {"problem_id": problem.problem_id, "prompt": prompt, "answer": problem.answer}
    return {**row, **{key: value for key, value in problem.extra.items() if key not in row}}


class _Reader:
    """Turns rows into rollouts, which must be consistent with those before."""

    def __init__(self, columns: Mapping[str, str], required: tuple[str, ...]):
        self._columns = columns
        self._required = required
        self._seen: dict[tuple[str, int, str | None], Source] = {}
        self._prompts: dict[str, tuple[Prompt, Source]] = {}
        self._counts: Counter[tuple[str, str | None]] = Counter()
        self._first: tuple[Row, Source] | None = None

    def of_ours(self, row: Row, source: Source) -> list[Rollout]:
        """The one rollout of a row of ours."""
        ours = self._renamed(row, source) if self._columns else row
        values = self._values(ours, row, source)
        extra = {name: value for name, value in ours.items() if name not in COLUMNS}
        if "steps" in extra:
            extra["steps"] = _step_texts(extra["steps"], values["response"], source)
        problem_id, index, scorer = values["problem_id"], values["sample_idx"], values["scorer"]
        if index is None:
            index = values["sample_idx"] = self._counts[problem_id, scorer]
        values["prompt"] = self._prompt(problem_id, values["prompt"], source, name=f"{self._named('prompt')}: ")
        if (first := self._seen.setdefault((problem_id, index, scorer), source)) is not source:
            by = f" by scorer {scorer!r}" if scorer is not None else ""
            raise RecordError(
                f"{source}: sample_idx: {index} of problem {problem_id!r}{by} is already at {first}; expected each "
                "sample once",
                reason="a sample that is there already",
            )
        self._counts[problem_id, scorer] += 1
        self._first = self._first or (row, source)
        return [Rollout(**values, extra=extra)]

    def of_format(self, format_: RowFormat, row: Row, source: Source) -> list[Rollout]:
        """The rollouts of a row of another format, numbered from those before."""
        made = list(format_.read(renamed(row, self._columns, mapped(row, self._columns), ours=COLUMNS), source))
        for one in made:
            self._prompt(one.problem_id, one.prompt, source, name="")
        before = {(one.problem_id, one.scorer): self._counts[one.problem_id, one.scorer] for one in made}
        numbered = []
        for one in made:
            key = one.problem_id, one.scorer
            index = before[key] + one.sample_idx
            if index and getattr(format_, "unique_ids", False):
                raise RecordError(
                    f"{source}: id: {one.problem_id!r} is already at {self._prompts[one.problem_id][1]}; expected each "
                    "once",
                    reason="an id that is there already",
                )
            self._seen[one.problem_id, index, one.scorer] = source
            self._counts[key] = max(self._counts[key], index + 1)
            numbered.append(one if index == one.sample_idx else replace(one, sample_idx=index))
        self._first = self._first or (row, source)
        return numbered

    def missing_everywhere(self, name: str) -> RecordError:
        """The error for a column that no row has."""
        assert self._first is not None
        return self._absent(name, *self._first, also=", nor has any other row")

    def _renamed(self, row: Row, source: Source) -> Row:
        """The row under our names, all of which it must have."""
        found = mapped(row, self._columns)
        if missing := [name for name in self._columns if name not in found]:
            raise self._absent(missing[0], row, source)
        return renamed(row, self._columns, found, ours=COLUMNS)

    def _prompt(self, problem_id: str, prompt: Prompt, source: Source, *, name: str) -> Prompt:
        """The problem's prompt, which is the same in all its rows."""
        first, where = self._prompts.setdefault(problem_id, (prompt, source))
        if first != prompt:
            raise RecordError(
                f"{source}: {name}is another prompt than {where} has for problem {problem_id!r}; "
                "expected one prompt a problem. Problems from different sources need different ids",
                reason="another prompt under the same problem_id",
            )
        return first

    def _values(self, ours: Row, row: Row, source: Source) -> dict[str, Any]:
        """The row's values in our columns, validated."""
        present = {name: value for name in COLUMNS if (value := ours.get(name)) is not None}
        for name in self._required:
            if name not in present:
                if name not in ours:
                    raise self._absent(name, row, source)
                column = COLUMNS[name]
                raise RecordError(
                    f"{source}: {self._named(name)}: is null; expected {column.expected}.{column.called.advice}",
                    reason=f"{self._named(name)} is null",
                )
        try:
            return OurColumns.model_validate(present).__dict__
        except ValidationError as error:
            name = str(error.errors(include_url=False)[0]["loc"][0])
            expected = COLUMNS[name].expected
            raise RecordError(
                f"{source}: {self._named(name)}: {found_in(error, name, present[name])}; expected {expected}",
                reason=f"{self._named(name)} is not {expected}",
            ) from error

    def _absent(self, name: str, row: Row, source: Source, *, also: str = "") -> RecordError:
        theirs = self._named(name)
        aliases, advice = (COLUMNS[name].called.aliases, COLUMNS[name].called.advice) if name in COLUMNS else ((), "")
        mapping = f", asked for by --map {name}={theirs}" if name in self._columns else ""
        close = [alias for alias in aliases if alias in row]
        close += get_close_matches(theirs, [item for item in row if item not in COLUMNS], n=1)
        hint = f" Did you mean --map {name}={close[0]}?" if close else ""
        return RecordError(
            f"{source}: {theirs}: no such column{mapping}{also}. The row has {', '.join(row) or 'none'}.{hint}{advice}",
            reason=f"no column {theirs}",
            row=row,
        )

    def _named(self, name: str) -> str:
        """The rows' name for our column."""
        return self._columns.get(name, name)


def _step_texts(steps: Any, response: str, source: Source) -> Any:
    """Steps that are given as [first character, the one after the last] as texts; any others as they are.

    Raises:
        RecordError: they are out of order or out of the response, or leave out more than whitespace.
    """
    if not isinstance(steps, list) or not steps or not all(isinstance(step, list) for step in steps):
        return steps
    end = len(response)
    at, wrong = 0, ""
    for index, span in enumerate([*steps, [end, end]]):
        if len(span) != 2 or not all(type(place) is int for place in span):
            wrong = "expected [first character, the one after the last]"
        elif not at <= span[0] <= span[1] <= end:
            wrong = f"expected it from character {at} on, in order, within the response's {end}"
        elif left_out := response[at : span[0]].strip():
            wrong = f"{left_out[:40]!r} before it is in no step"
        if wrong:
            what = f"step {index} is {span}" if index < len(steps) else f"the response ends at {end}"
            raise RecordError(f"{source}: steps: {what}; {wrong}", reason="steps that are not the response's")
        at = span[1]
    return [response[start:stop] for start, stop in steps]


def _checked(columns: Mapping[str, str], *, ours: bool) -> Mapping[str, str]:
    known = [*COLUMNS, *CARRIED]
    for name in columns:
        if ours and name not in known:
            hint = suggestion(name, known)
            raise ConfigError(f"--map {name}=...: no such column of ours.{hint} There are {', '.join(known)}")
    check_columns(columns)
    return columns
