"""Files of rollouts, ProcessBench files among them, to the different responses in them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from freeprm.errors import DataError
from freeprm.formats.processbench import is_processbench, read_processbench
from freeprm.io.rollouts import OnBad, read_rollouts
from freeprm.types import Rollout


def read_responses(
    inputs: Sequence[Path], *, columns: Mapping[str, str] | None, on_bad: OnBad
) -> tuple[list[Rollout], Counter[str]]:
    """Each response once, and the count of what was skipped.

    Args:
        inputs: rollouts, files or run folders; a ProcessBench file brings its own steps.
        columns: our column name -> theirs.
        on_bad: stop at a broken record, or count it.

    Raises:
        RecordError: a broken record.
        DataError: there is none, or a sample stands for two different responses.
    """
    rollouts: list[Rollout] = []
    counts: Counter[str] = Counter()
    plain = [path for path in inputs if not is_processbench(path)]
    for path in inputs:
        if path not in plain:
            rollouts += read_processbench(path)
    if plain:
        rows = read_rollouts(plain, columns=columns, on_bad=on_bad)
        rollouts += rows.rollouts
        counts.update({f"skipped: {reason}": n for reason, n in rows.skipped.items()})
    if not rollouts:
        raise DataError("nothing to score")
    once = _once(rollouts)
    counts["skipped: again, with the scores of another scorer"] = len(rollouts) - len(once)
    return once, counts


def _once(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Each response once, where the input holds it with the scores of several scorers."""
    first: dict[tuple[str, int], Rollout] = {}
    for rollout in rollouts:
        seen = first.setdefault((rollout.problem_id, rollout.sample_idx), rollout)
        if seen.response != rollout.response:
            raise DataError(
                f"problem {rollout.problem_id!r}, sample {rollout.sample_idx}: stands for two different responses in "
                "the input; score files that share problem_ids into separate folders"
            )
    return list(first.values())
