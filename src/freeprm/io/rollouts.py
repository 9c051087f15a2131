"""Rows to records and back: the columns that freeprm reads and writes.

    problem_id, sample_idx, prompt, response, answer, pred, correct, truncated, scorer, step_scores, score

Every other column is carried along untouched. Another source's names, or paths into its columns, are mapped:
{"correct": "label", "step_scores": "output.step_scores"}; a column that bears one of our names but is not what we mean
by it is then carried along as `source_correct`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple

from freeprm.errors import ConfigError, RecordError
from freeprm.io.columns import COLUMNS
from freeprm.io.files import read_rows
from freeprm.io.rows import Row, Source, check_columns, mapped, renamed, short
from freeprm.types import Problem, Prompt, Rollout

OnBad = Literal["raise", "skip"]
CARRIED = ("first_error", "steps")
"""Columns that some stages read among those carried along, and that can be mapped like our own."""


class Rollouts(NamedTuple):
    """What was read, and what was not."""

    rollouts: list[Rollout]
    skipped: Counter[str]
    """Broken records left out, by reason; empty unless skipping was asked for."""


def read_rollouts(
    paths: Iterable[Path],
    *,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    require: Iterable[str] = ("response",),
    expect: Iterable[str] = (),
) -> Rollouts:
    """Rollouts from files or run folders.

    A row without `sample_idx` is numbered by its place among the rows of its problem and scorer.

    Args:
        paths: files, folders or hub names, as `read_rows` takes them.
        columns: our column name -> the name that it has in the rows.
        on_bad: stop at the first broken record, or leave it out and count it.
        require: columns that every row must have, not null; besides `problem_id` and `prompt`.
        expect: columns that at least one row must have, e.g. `correct` for training.

    Raises:
        ConfigError: `columns` names a column that we do not have.
        RecordError: names the file, the line, the field, and what was expected.
    """
    paths = list(paths)
    reader = _Reader(_checked(columns or {}), required=("problem_id", "prompt", *require))
    rollouts: list[Rollout] = []
    skipped: Counter[str] = Counter()
    for source, row in (pair for path in paths for pair in read_rows(path)):
        try:
            if isinstance(row, RecordError):
                raise row
            rollouts.append(reader.rollout(row, source))
        except RecordError as error:
            if on_bad == "raise":
                raise
            skipped[error.reason] += 1
    if not rollouts:
        reasons = "; ".join(f"{count} skipped: {reason}" for reason, count in skipped.items())
        raise RecordError(f"{', '.join(map(str, paths))}: no usable record ({reasons or 'there is none at all'})")
    for name in expect:
        if all(getattr(rollout, name) is None for rollout in rollouts):
            raise reader.nowhere(name)
    return Rollouts(rollouts, skipped)


def rollout_of(row: Row, source: Source) -> Rollout:
    """The rollout of one row that has our columns, taken by itself.

    Raises:
        RecordError: names the file, the line, the field, and what was expected.
    """
    return _Reader({}, required=("problem_id", "prompt", "response")).rollout(row, source)


def rollout_row(rollout: Rollout) -> Row:
    """The row of a rollout: known columns that are set, then whatever else the source said."""
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
    """Turns rows into rollouts, and remembers what stood in those before."""

    def __init__(self, columns: Mapping[str, str], *, required: tuple[str, ...]):
        self._columns = columns
        self._required = required
        self._seen: dict[tuple[str, int, str | None], Source] = {}
        self._prompts: dict[str, tuple[Prompt, Source]] = {}
        self._counts: Counter[tuple[str, str | None]] = Counter()
        self._first: tuple[Row, Source] | None = None

    def rollout(self, row: Row, source: Source) -> Rollout:
        """The rollout of a row, which must fit those before."""
        ours = self._renamed(row, source)
        values = {name: value for name in COLUMNS if (value := self._value(name, ours, row, source)) is not None}
        problem_id, scorer = values["problem_id"], values.get("scorer")
        values.setdefault("sample_idx", self._counts[problem_id, scorer])
        prompt, where = self._prompts.setdefault(problem_id, (values["prompt"], source))
        if prompt != values["prompt"]:
            raise RecordError(
                f"{source}: {self._named('prompt')}: is another prompt than {where} has for problem {problem_id!r}; "
                "expected one prompt a problem. Problems from different sources need different ids",
                reason="another prompt under the same problem_id",
            )
        key = (problem_id, values["sample_idx"], scorer)
        if key in self._seen:
            by = f" by scorer {scorer!r}" if scorer is not None else ""
            raise RecordError(
                f"{source}: sample_idx: {values['sample_idx']} of problem {problem_id!r}{by} is already at "
                f"{self._seen[key]}; expected each sample once",
                reason="a sample that is there already",
            )
        self._seen[key] = source
        self._counts[problem_id, scorer] += 1
        self._first = self._first or (row, source)
        extra = {name: value for name, value in ours.items() if name not in COLUMNS}
        return Rollout(**{**values, "prompt": prompt}, extra=extra)

    def nowhere(self, name: str) -> RecordError:
        """The error for a column that no row has."""
        assert self._first is not None
        return self._absent(name, *self._first, also=", nor has any other row")

    def _renamed(self, row: Row, source: Source) -> Row:
        """The row under our names."""
        found = mapped(row, self._columns)
        if missing := [name for name in self._columns if name not in found]:
            raise self._absent(missing[0], row, source)
        return renamed(row, self._columns, found, ours=COLUMNS)

    def _value(self, name: str, ours: Row, row: Row, source: Source) -> Any:
        column, value = COLUMNS[name], ours.get(name)
        if value is None:
            if name in self._required and name not in ours:
                raise self._absent(name, row, source)
            if name in self._required:
                raise RecordError(
                    f"{source}: {self._named(name)}: is null; expected {column.expected}.{column.advice}",
                    reason=f"{self._named(name)} is null",
                )
            return None
        try:
            return column.convert(value)
        except (ValueError, OverflowError) as error:
            wrong = str(error) if isinstance(error, ValueError) and str(error) else f"is {short(value)}"
            raise RecordError(
                f"{source}: {self._named(name)}: {wrong}; expected {column.expected}",
                reason=f"{self._named(name)} is not {column.expected}",
            ) from error

    def _absent(self, name: str, row: Row, source: Source, *, also: str = "") -> RecordError:
        column, theirs = COLUMNS.get(name), self._named(name)
        asked = f", asked for by --map {name}={theirs}" if name in self._columns else ""
        aliases = [alias for alias in column.aliases if alias in row] if column else []
        close = [*aliases, *get_close_matches(theirs, [item for item in row if item not in COLUMNS], n=1)]
        hint = f" Did you mean --map {name}={close[0]}?" if close else ""
        return RecordError(
            f"{source}: {theirs}: no such column{asked}{also}. The row has {', '.join(row) or 'none'}."
            f"{hint}{column.advice if column else ''}",
            reason=f"no column {theirs}",
            row=row,
        )

    def _named(self, name: str) -> str:
        """What the rows call our column."""
        return self._columns.get(name, name)


def _checked(columns: Mapping[str, str]) -> Mapping[str, str]:
    known = [*COLUMNS, *CARRIED]
    for name in columns:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"--map {name}=...: no such column of ours.{hint} There are {', '.join(known)}")
    check_columns(columns)
    return columns
