"""Outputs of somebody else's model -> scores of the responses that they are for.

They stand in a column of the rollouts or in files of a server's answers (`served.py`). Nothing is guessed: what the
numbers mean is said (`ScoreOptions`), there must be one a step where the steps are known, and what has none is counted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from freeprm.core import score_kinds
from freeprm.core.score_kinds import ClassScores, Meaning, Values, class_scores
from freeprm.core.selectors import named
from freeprm.core.steps import splitter as splitter_named
from freeprm.errors import ConfigError, DataError, RecordError
from freeprm.formats._served import Answer, Matched, alike, answer_of, by_id, failures, in_order
from freeprm.io.columns import COLUMNS
from freeprm.io.files import read_rows
from freeprm.io.rows import OnBad, Row
from freeprm.types import Rollout

IGNORED = -100
"""The label of places that do not count, in transformers and TRL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """What is said of somebody else's scores."""

    good: int | str | None = None
    """The class of right steps or responses, by index from 0; by label where outputs name labels."""
    values: Values = "probabilities"
    """What the numbers are; see `Meaning`."""
    column: str | None = None
    """The column of the rollouts that holds outputs: numbers, or a server's answer."""
    mask: str | None = None
    """The column with a label for each place of the outputs; places labelled -100 are left out."""
    id: str = "{problem_id}/{sample_idx}"
    """What the `custom_id` of requests was made like; columns in braces."""
    splitter: str | None = None
    """How steps were cut, to check their number where rows have no `steps`; a name of `core.steps.SPLITTERS`."""
    scorer: str | None = None
    """The scorer's name; the model that an answer names, or else the column or the file, if not given."""

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


def in_file(
    path: Path, samples: Sequence[Rollout], told: ScoreOptions, on_bad: OnBad, counts: Counter[str]
) -> list[Matched]:
    """What a file of answers holds for which sample.

    Args:
        path: the file, as `read_rows` takes it.
        samples: each response once, in the order of the rollouts.
        told: says how ids are made.
        on_bad: stop at a broken answer or one that is nobody's, or leave it out.
        counts: gets what failed and what was left out, by reason.

    Raises:
        RecordError: a broken answer, or none at all.
        DataError: an answer that is nobody's, or is there twice.
    """
    answers: list[Answer] = []
    for source, row in read_rows(path):
        try:
            if isinstance(row, RecordError):
                raise row
            answers.append(answer_of(row, source))
        except RecordError as error:
            if on_bad == "raise":
                raise
            counts[f"skipped: {error.reason}"] += 1
    if not answers:
        raise RecordError(f"{path}: no answer of a server in it")
    counts.update(failures(answers))
    named_ids = {answer.custom_id is not None for answer in answers}
    if len(named_ids) > 1:
        raise DataError(f"{path}: some answers have a custom_id, some have none; expected the same of all")
    if named_ids == {False}:
        return in_order(answers, samples)
    matched, flaws = by_id(answers, samples, template=told.id)
    if flaws and on_bad == "raise":
        raise flaws[0]
    counts["skipped: answers to no response, or to one that has an answer"] += len(flaws)
    return matched


def in_column(samples: Sequence[Rollout], told: ScoreOptions, on_bad: OnBad, counts: Counter[str]) -> Iterator[Matched]:
    """What stands in the column of each sample; arguments as for `in_file`.

    Raises:
        ConfigError: no row has the column.
        DataError: an answer that is broken or for several texts, or a mask of another length.
    """
    if not any(told.column in row.extra for row in samples):
        known = ", ".join(sorted({name for row in samples for name in row.extra})) or "none"
        raise ConfigError(f"column: no row has a column {told.column!r}; further columns there are: {known}")
    for row in samples:
        try:
            answer = _of_row(row, told)
            counts.update(failures([answer]))
            if answer.items:
                yield Matched(row, _masked(row, answer.items[0], told), answer)
        except (DataError, RecordError) as error:
            if on_bad == "raise":
                raise DataError(f"{named(row)}: {told.column}: {error}") from error
            counts[f"skipped: {told.column}: {alike(str(error))}"] += 1


def _of_row(row: Rollout, told: ScoreOptions) -> Answer:
    """What the column holds, as an answer with one item; with none where it is null."""
    value = row.extra.get(told.column or "")
    if not _is_answer(value):
        return Answer(None, None, () if value is None else (value,), None, None)
    answer = answer_of(value, None)
    if len(answer.items) > 1:
        raise DataError(f"has {len(answer.items)} items; expected one, for this response")
    return answer


def _is_answer(value: Any) -> TypeGuard[Row]:
    """A whole answer, and not an item of one."""
    if not isinstance(value, Mapping):
        return False
    data = value.get("data")
    return bool("response" in value or value.get("error") or value.get("object") in ("list", "error")) or (
        isinstance(data, list) and isinstance(next(iter(data), None), Mapping)
    )


def _masked(row: Rollout, outputs: Any, told: ScoreOptions) -> Any:
    if told.mask is None:
        return outputs
    labels = row.extra.get(told.mask)
    if not isinstance(labels, list) or not isinstance(outputs, list) or len(labels) != len(outputs):
        n_places = len(outputs) if isinstance(outputs, list) else "no"
        raise DataError(f"has {n_places} places; expected as many as {told.mask} has labels, a list")
    return [output for output, label in zip(outputs, labels, strict=True) if label != IGNORED]


def attached(
    name: str, matched: Iterable[Matched], told: ScoreOptions, on_bad: OnBad, counts: Counter[str]
) -> list[Rollout]:
    """The samples with the scores of their outputs.

    Raises:
        ConfigError: `good` is not given, or names none of the classes.
        DataError: outputs that are not what was said, or not one a step; names the sample.
    """
    found, meaning = [], Meaning(good=told.good, values=told.values)
    kind = {} if told.values == "scores" else {score_kinds.COLUMN: "probability"}
    for match in matched:
        place = f"{match.answer.source}, {named(match.rollout)}" if match.answer.source else named(match.rollout)
        try:
            scores = class_scores(match.outputs, meaning)
            known = _check_number(scores, match.rollout, told)
        except ConfigError as error:
            raise ConfigError(f"{place}: {name}: {error}") from error
        except DataError as error:
            if on_bad == "raise":
                raise DataError(f"{place}: {name}: {error}") from error
            counts[f"skipped: {name}: {alike(str(error))}"] += 1
            continue
        counts["step scores whose number could not be checked, as the steps are not known"] += not known
        carried = {column: value for column, value in match.rollout.extra.items() if column != score_kinds.COLUMN}
        found.append(replace(
            match.rollout, scorer=told.scorer or match.answer.model or name, step_scores=scores.steps,
            score=scores.response, extra={**carried, **kind},
        ))  # fmt: skip
    if not found:
        reasons = "; ".join(f"{count} {reason}" for reason, count in counts.items()) or "it holds nothing for them"
        raise DataError(f"{name}: no response has a score by it ({reasons})")
    numbers = {number for row in found for number in (row.step_scores or (row.score,))}
    if numbers == {1.0} and len(found) > 1:
        raise DataError(
            f"{name}: every score is exactly 1, as the softmax over a single class makes it; have the server apply no "
            "activation (use_activation false), and say values=scores"
        )
    counts[f"scored by {name}"] = len(found)
    return found


def _check_number(scores: ClassScores, row: Rollout, told: ScoreOptions) -> bool:
    """Whether there is a score for each step, as far as the steps are known."""
    if scores.steps is None:
        return True
    steps = next((row.extra[name] for name in ("steps", "step_labels") if isinstance(row.extra.get(name), list)), None)
    if steps is None and told.splitter is not None:
        steps = splitter_named(told.splitter)(row.response)
    if steps is not None and len(steps) != len(scores.steps):
        raise DataError(f"has {len(scores.steps)} step scores, but the response has {len(steps)} steps")
    return steps is not None
