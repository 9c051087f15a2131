"""Files of any format to rollouts with scores: those of their rows, of a column, or of files of a server's answers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from freeprm.core.selectors import named
from freeprm.errors import ConfigError, DataError
from freeprm.formats._attaching import ScoreOptions, attached, in_column, in_file
from freeprm.formats._reading import formats_of
from freeprm.io.config import build
from freeprm.io.rollouts import Rollouts, read_rollouts
from freeprm.io.rows import OnBad
from freeprm.types import Rollout


def read_scored(
    inputs: Sequence[Path],
    *,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    require: Iterable[str] = ("response",),
    scores: Sequence[Path] = (),
    options: Mapping[str, Any] | None = None,
) -> Rollouts:
    """Rollouts from files of any format, with the scores that are asked for.

    Args:
        inputs: files, folders or hub names; formats other than ours are told from their first row.
        columns: our column name, or the format's -> the name that it has in the rows.
        on_bad: stop at what is broken, or leave it out and count it.
        require: columns that every row of ours must have.
        scores: as for `with_scores`.
        options: as for `with_scores`.

    Returns:
        The rollouts; and counts of what was skipped, what failed and what got scores, in words.

    Raises:
        FreePRMError: as `read_rollouts`, `read_records` and `with_scores`.
    """
    columns = columns or {}
    read = read_rollouts(
        inputs, columns=columns, on_bad=on_bad, require=require, formats=formats_of(inputs, columns=columns)
    )
    rollouts, counts = with_scores(read.rollouts, scores=scores, options=options, on_bad=on_bad)
    skipped = Counter({f"skipped: {why}": n for why, n in read.skipped.items()})
    return read._replace(rollouts=rollouts, skipped=skipped + counts)


def with_scores(
    rollouts: Sequence[Rollout], *, scores: Sequence[Path], options: Mapping[str, Any] | None, on_bad: OnBad
) -> tuple[list[Rollout], Counter[str]]:
    """The rollouts with somebody else's scores; one that has scores already stands there with each of them, by scorer.

    Args:
        rollouts: several scorers' or one's, with or without scores.
        scores: files of a server's answers, each of them for all the rollouts.
        options: fields of `ScoreOptions`, which also say in which column there are outputs.
        on_bad: stop at a broken answer, or leave it out and count it.

    Returns:
        The rollouts, and counts of what failed and what got scores, in words.

    Raises:
        ConfigError: an option is unknown, or does not fit what the outputs hold.
        DataError, RecordError: a broken answer; names its place and what was expected.
    """
    told = build(ScoreOptions, [options or {}])
    if options and not scores and told.column is None:
        raise ConfigError("score options are for outputs in a column (column=NAME) or in files of answers (scores)")
    counts: Counter[str] = Counter()
    first: dict[tuple[str, int], Rollout] = {}
    for row in rollouts:
        first.setdefault((row.problem_id, row.sample_idx), row)
    samples = list(first.values())
    parts = [attached(path.stem, in_file(path, samples, told, on_bad, counts), told, on_bad, counts) for path in scores]
    if told.column is not None:
        parts.append(attached(told.column, in_column(samples, told, on_bad, counts), told, on_bad, counts))
    added = [rollout for part in parts for rollout in part]
    if not added:
        return list(rollouts), counts
    own = [row for row in rollouts if _has_scores(row)]
    _refuse_twice([*own, *added])
    have = {(row.problem_id, row.sample_idx) for row in (*own, *added)}
    bare = [row for row in rollouts if (row.problem_id, row.sample_idx) not in have]
    return [*own, *added, *bare], +counts


def _has_scores(row: Rollout) -> bool:
    return row.step_scores is not None or row.score is not None


def _refuse_twice(rows: Iterable[Rollout]) -> None:
    seen: set[tuple[str, int, str | None]] = set()
    for row in rows:
        key = (row.problem_id, row.sample_idx, row.scorer)
        if key in seen:
            raise DataError(f"{named(row)}: has scores of this scorer twice; tell them apart by scorer=NAME")
        seen.add(key)
