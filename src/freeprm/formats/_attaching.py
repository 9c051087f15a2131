"""Files of any format to rollouts with scores: of their rows, of a column, or of files of a server's answers.

Outputs of another model are in a column of the rollouts, or in files of a server's answers (`_served.py`). Nothing is
guessed: the meaning of the numbers is declared (`ScoreOptions`), there must be one for each step if the steps are
known, and responses without scores are counted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from freeprm.core import score_kinds
from freeprm.core.score_kinds import ClassScores, Meaning, Values, class_scores
from freeprm.core.selectors import named
from freeprm.core.steps import splitter as splitter_named
from freeprm.errors import ConfigError, DataError, RecordError
from freeprm.formats._reading import formats_of
from freeprm.formats._served import Answer, Matched, alike, answer_of, by_id, failures, in_order
from freeprm.io.columns import COLUMNS
from freeprm.io.config import build
from freeprm.io.files import read_rows
from freeprm.io.rollouts import Rollouts, read_rollouts
from freeprm.io.rows import OnBad, Row
from freeprm.types import Rollout

IGNORED = -100
"""The label of ignored positions in transformers and TRL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """The meaning and location of another model's scores."""

    good: int | str | None = None
    """The class of right steps or responses, by index from 0; by label if outputs name labels."""
    values: Values = "probabilities"
    """See `Meaning`."""
    column: str | None = None
    """The column of outputs: numbers, or a server's answer."""
    mask: str | None = None
    """The column with a label for each position of the outputs; positions labelled -100 are left out."""
    id: str = "{problem_id}/{sample_idx}"
    """Template of the requests' `custom_id`, with columns in braces."""
    splitter: str | None = None
    """The splitter of the steps, to check their number in rows without `steps`; a name of `core.steps.SPLITTERS`."""
    scorer: str | None = None
    """The scorer's name; by default the model in an answer, or else the column or the file."""

    def __post_init__(self) -> None:
        Meaning(good=self.good, values=self.values)
        if self.splitter is not None:
            splitter_named(self.splitter)
        if self.column in COLUMNS:
            raise ConfigError(
                f"column: {self.column} is a column of ours, with a meaning of its own; keep outputs in another one"
            )
        if self.mask is not None and self.column is None:
            raise ConfigError("mask: goes with column, whose places it labels")


def read_scored(
    inputs: Sequence[Path],
    *,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    scores: Sequence[Path] = (),
    options: Mapping[str, Any] | None = None,
) -> Rollouts:
    """Rollouts from files of any format, with further scores.

    Args:
        inputs: files, folders or hub names; formats other than ours are inferred from their first row.
        columns: our column name, or the format's -> the name in the rows.
        on_bad: stop at a broken record, or leave it out and count it.
        scores, options: as for `with_scores`.

    Returns:
        The rollouts; and counts of records skipped, failed and scored, by description.
    """
    read = read_rollouts(inputs, columns=columns, on_bad=on_bad, formats=formats_of(inputs, columns=columns))
    rollouts, counts = with_scores(read.rollouts, scores=scores, options=options, on_bad=on_bad)
    skipped = Counter({f"skipped: {why}": n for why, n in read.skipped.items()})
    return read._replace(rollouts=rollouts, skipped=skipped + counts)


def with_scores(
    rollouts: Sequence[Rollout], *, scores: Sequence[Path], options: Mapping[str, Any] | None, on_bad: OnBad
) -> tuple[list[Rollout], Counter[str]]:
    """The rollouts with further scores; a response has a rollout for each of its scorers.

    Args:
        rollouts: of one or several scorers, with or without scores.
        scores: files of a server's answers, each for all the rollouts.
        options: fields of `ScoreOptions`.
        on_bad: stop at a broken answer, or leave it out and count it.

    Returns:
        The rollouts, and counts of answers failed and responses scored, by description.

    Raises:
        ConfigError: an option is unknown, or does not fit the outputs.
        DataError, RecordError: a broken answer; says where it is and what was expected.
    """
    read_as = build(ScoreOptions, [options or {}])
    if options and not scores and read_as.column is None:
        raise ConfigError("score options are for outputs in a column (column=NAME) or in files of answers (scores)")
    attaching = Attaching(read_as, on_bad)
    first: dict[tuple[str, int], Rollout] = {}
    for row in rollouts:
        first.setdefault((row.problem_id, row.sample_idx), row)
    samples = list(first.values())
    parts = [attaching.attached(path.stem, attaching.in_file(path, samples)) for path in scores]
    if read_as.column is not None:
        parts.append(attaching.attached(read_as.column, attaching.in_column(samples)))
    added = [rollout for part in parts for rollout in part]
    if not added:
        return list(rollouts), attaching.counts
    own = [row for row in rollouts if row.step_scores is not None or row.score is not None]
    _refuse_twice([*own, *added])
    have = {(row.problem_id, row.sample_idx) for row in (*own, *added)}
    bare = [row for row in rollouts if (row.problem_id, row.sample_idx) not in have]
    return [*own, *added, *bare], +attaching.counts


@dataclass(frozen=True, slots=True)
class Attaching:
    """Finds the outputs of each response, and makes scores of them."""

    options: ScoreOptions
    on_bad: OnBad
    counts: Counter[str] = field(default_factory=Counter)
    """Failed, left out and scored, by reason."""

    def in_file(self, path: Path, samples: Sequence[Rollout]) -> list[Matched]:
        """The answers in a file with their samples.

        Args:
            path: the file, as `read_rows` takes it.
            samples: each response once, in the order of the rollouts.

        Raises:
            RecordError: a broken answer, or no answer at all.
            DataError: an answer for no response, or a second one.
        """
        answers: list[Answer] = []
        for source, row in read_rows(path):
            try:
                if isinstance(row, RecordError):
                    raise row
                answers.append(answer_of(row, source))
            except RecordError as error:
                self._skip(error, f"skipped: {error.reason}")
        if not answers:
            raise RecordError(f"{path}: no answer of a server in it")
        self.counts.update(failures(answers))
        named_ids = {answer.custom_id is not None for answer in answers}
        if len(named_ids) > 1:
            raise DataError(f"{path}: some answers have a custom_id, some have none; expected the same of all")
        if named_ids == {False}:
            return in_order(answers, samples)
        matched, flaws = by_id(answers, samples, template=self.options.id)
        for flaw in flaws:
            self._skip(flaw, "skipped: answers to no response, or to one that has an answer")
        return matched

    def in_column(self, samples: Sequence[Rollout]) -> Iterator[Matched]:
        """The outputs in the column of each sample.

        Raises:
            ConfigError: no row has the column.
            DataError: an answer that is broken or for several texts, or a mask of another length.
        """
        column = self.options.column
        if not any(column in row.extra for row in samples):
            known = ", ".join(sorted({name for row in samples for name in row.extra})) or "none"
            raise ConfigError(f"column: no row has a column {column!r}; further columns there are: {known}")
        for row in samples:
            try:
                answer = _of_row(row, self.options)
                self.counts.update(failures([answer]))
                if answer.items:
                    yield Matched(row, _masked(row, answer.items[0], self.options), answer)
            except (DataError, RecordError) as error:
                flaw = DataError(f"{named(row)}: {column}: {error}")
                self._skip(flaw, f"skipped: {column}: {alike(str(error))}")

    def attached(self, name: str, matched: Iterable[Matched]) -> list[Rollout]:
        """The samples with the scores of their outputs.

        Raises:
            ConfigError: `good` is missing, or none of the classes.
            DataError: outputs that contradict the options, or not one for each step; names the sample.
        """
        options, found = self.options, []
        meaning = Meaning(good=options.good, values=options.values)
        kind = {} if options.values == "scores" else {score_kinds.COLUMN: "probability"}
        for match in matched:
            place = f"{match.answer.source}, {named(match.rollout)}" if match.answer.source else named(match.rollout)
            try:
                scores = class_scores(match.outputs, meaning)
                known = _check_number(scores, match.rollout, options)
            except ConfigError as error:
                raise ConfigError(f"{place}: {name}: {error}") from error
            except DataError as error:
                self._skip(DataError(f"{place}: {name}: {error}"), f"skipped: {name}: {alike(str(error))}")
                continue
            self.counts["step scores whose number could not be checked, as the steps are not known"] += not known
            carried = {column: value for column, value in match.rollout.extra.items() if column != score_kinds.COLUMN}
            found.append(replace(
                match.rollout, scorer=options.scorer or match.answer.model or name, step_scores=scores.steps,
                score=scores.response, extra={**carried, **kind},
            ))  # fmt: skip
        if not found:
            reasons = "; ".join(f"{count} {reason}" for reason, count in self.counts.items())
            raise DataError(f"{name}: no response has a score by it ({reasons or 'it holds nothing for them'})")
        numbers = {number for row in found for number in (row.step_scores or (row.score,))}
        if numbers == {1.0} and len(found) > 1:
            raise DataError(
                f"{name}: every score is exactly 1, as the softmax over a single class makes it; have the server apply "
                "no activation (use_activation false), and say values=scores"
            )
        self.counts[f"scored by {name}"] = len(found)
        return found

    def _skip(self, error: DataError | RecordError, reason: str) -> None:
        """Raise the error, or count it."""
        if self.on_bad == "raise":
            raise error
        self.counts[reason] += 1


def _of_row(row: Rollout, options: ScoreOptions) -> Answer:
    """The column's value as an answer with one item, or none for null."""
    value = row.extra.get(options.column or "")
    if not _is_answer(value):
        return Answer(None, None, () if value is None else (value,), None, None)
    answer = answer_of(value, None)
    if len(answer.items) > 1:
        raise DataError(f"has {len(answer.items)} items; expected one, for this response")
    return answer


def _is_answer(value: Any) -> TypeGuard[Row]:
    """Whether it is a whole answer, and not an item of one."""
    if not isinstance(value, Mapping):
        return False
    data = value.get("data")
    return bool("response" in value or value.get("error") or value.get("object") in ("list", "error")) or (
        isinstance(data, list) and isinstance(next(iter(data), None), Mapping)
    )


def _masked(row: Rollout, outputs: Any, options: ScoreOptions) -> Any:
    if options.mask is None:
        return outputs
    labels = row.extra.get(options.mask)
    if not isinstance(labels, list) or not isinstance(outputs, list) or len(labels) != len(outputs):
        n_outputs = len(outputs) if isinstance(outputs, list) else "no"
        raise DataError(f"has {n_outputs} places; expected as many as {options.mask} has labels, a list")
    return [output for output, label in zip(outputs, labels, strict=True) if label != IGNORED]


def _check_number(scores: ClassScores, row: Rollout, options: ScoreOptions) -> bool:
    """Check the number of step scores; False if the steps are unknown."""
    if scores.steps is None:
        return True
    steps = next((row.extra[name] for name in ("steps", "step_labels") if isinstance(row.extra.get(name), list)), None)
    if steps is None and options.splitter is not None:
        steps = splitter_named(options.splitter)(row.response)
    if steps is not None and len(steps) != len(scores.steps):
        raise DataError(f"has {len(scores.steps)} step scores, but the response has {len(steps)} steps")
    return steps is not None


def _refuse_twice(rows: Iterable[Rollout]) -> None:
    seen: set[tuple[str, int, str | None]] = set()
    for row in rows:
        key = (row.problem_id, row.sample_idx, row.scorer)
        if key in seen:
            raise DataError(f"{named(row)}: has scores of this scorer twice; tell them apart by scorer=NAME")
        seen.add(key)
