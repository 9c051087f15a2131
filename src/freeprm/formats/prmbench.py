"""PRMBench's rows: a right solution, a modification of it with an error, and the wrong steps of that.

Steps are counted from 1 here. A row is two rollouts. All steps of the original are right; of the modification those in
`error_steps` are wrong and all others right, as in the benchmark; if none is wrong, several solutions are right. The
response is the steps, joined by line breaks. Each is its own problem, `<classification>/<idx>/original` and
`.../modified`, since the questions may differ; `variant` names it. The outcome is unknown. An original is in the row of
each of its modifications, and is read as often.

Writing makes a row of each original with a modification: those that were read together, or else, for each problem, each
response with a wrong step beside the first without one.

Source: Song et al. 2025, arXiv:2501.03124; hitsmy/PRMBench_Preview and ssmisya/PRMBench.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import Strict

from freeprm.core.step_labels import LabelledSteps, labelled_steps
from freeprm.errors import DataError
from freeprm.formats.base import Written, joined, rollouts_of, step_columns, write_each
from freeprm.io.columns import Expected, Filled, ForeignRow, Identifier, Texts, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout

_CARRIED = ("modified_steps", "reason", "idx", "question", "classification")
_VARIANTS = ("original", "modified")


class _Row(ForeignRow):
    original_question: Any = None
    original_process: Any = None
    modified_question: Filled
    modified_process: Texts
    error_steps: Annotated[list[Annotated[int, Strict()]], Expected("a list of whole numbers from 1")]
    idx: Identifier | None = None
    classification: Any = None


class _Original(ForeignRow):
    original_question: Filled
    original_process: Texts


@dataclass(frozen=True, kw_only=True)
class PRMBench:
    """Right solutions and their modifications."""

    originals: bool = True
    """Read the original solutions, too, not only the modified ones."""

    def recognises(self, row: Row) -> bool:
        """Has `original_process`, `modified_process` and `error_steps`."""
        return {"original_process", "modified_process", "error_steps"} <= row.keys()

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """The original and the modified solution of a row.

        Raises:
            RecordError: an error step is none of the modified ones, or there is no original where they are read.
        """
        parsed = _Row.of(row, source)
        n_steps = len(parsed.modified_process)
        if any(not 1 <= number <= n_steps for number in parsed.error_steps):
            raise parsed.wrong("error_steps", "a list of whole numbers from 1 to {count}", count=n_steps)
        name = f"{parsed.classification}/{parsed.idx or id_from(row['modified_process'])}"
        if self.originals:
            original = _Original.of(row, source)
            yield _rollout(parsed, "original", name, original.original_question, original.original_process, wrong=())
        yield _rollout(parsed, "modified", name, parsed.modified_question, parsed.modified_process, parsed.error_steps)

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each original with a modification of it."""
        skipped: Counter[str] = Counter()
        couples = [couple for found in _families(groups, skipped) for couple in _couples(found, skipped)]
        written = write_each(couples, _row, needs="problems with a response without a wrong step, and one with one")
        return Written(written.rows, written.skipped + skipped)


class _Solution(NamedTuple):
    rollout: Rollout
    labelled: LabelledSteps


class _Couple(NamedTuple):
    original: _Solution
    modified: _Solution


def _rollout(
    parsed: _Row, variant: str, name: str, question: str, steps: Sequence[str], wrong: Sequence[int]
) -> Rollout:
    return Rollout(
        problem_id=f"{name}/{variant}",
        sample_idx=0,
        prompt=question,
        response=joined(steps),
        extra={
            **parsed.others("idx", "classification"),
            "variant": variant,
            **step_columns(steps, [number not in wrong for number in range(1, len(steps) + 1)]),
        },
    )


def _families(groups: Sequence[Group], skipped: Counter[str]) -> Iterable[list[_Solution]]:
    """Solutions of one row, or else of one problem."""
    families: dict[tuple[Any, ...], list[_Solution]] = {}
    for rollout in rollouts_of(groups):
        try:
            solution = _Solution(rollout, labelled_steps(rollout))
        except DataError as error:
            skipped[str(error)] += 1
            continue
        read = rollout.extra.get("variant") in _VARIANTS
        key = (rollout.extra.get("classification"), rollout.extra.get("idx")) if read else (rollout.problem_id,)
        families.setdefault((*key, rollout.sample_idx) if read else key, []).append(solution)
    return families.values()


def _couples(family: Sequence[_Solution], skipped: Counter[str]) -> list[_Couple]:
    originals = [one for one in family if _variant(one) == "original"]
    modified = [one for one in family if _variant(one) == "modified"]
    if not originals or not modified:
        skipped["responses without a counterpart"] += len(family)
        return []
    skipped["responses without a counterpart"] += len(originals) - 1
    return [_Couple(originals[0], one) for one in modified]


def _variant(solution: _Solution) -> str:
    found = solution.rollout.extra.get("variant")
    made = "original" if solution.labelled.first_error is None else "modified"
    return str(found) if found in _VARIANTS else made


def _row(couple: _Couple, skipped: Counter[str]) -> Row:
    original, modified = couple
    errors = [number for number, label in enumerate(modified.labelled.labels, 1) if label is False]
    made = {"modified_steps": errors, "reason": None, "idx": _made_id(modified.rollout), "classification": None}
    carried = {name: value for name, value in modified.rollout.extra.items() if name in _CARRIED}
    return {
        "original_question": as_text(original.rollout.prompt),
        "modified_question": as_text(modified.rollout.prompt),
        "original_process": original.labelled.steps,
        "modified_process": modified.labelled.steps,
        "error_steps": errors,
        "question": as_text(original.rollout.prompt),
        **made,
        **carried,
    }


def _made_id(rollout: Rollout) -> str:
    return f"{rollout.problem_id}/{rollout.sample_idx}"


PLUGIN = PRMBench
