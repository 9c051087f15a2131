"""RewardBench 2's and RM-Bench's rows: a prompt with lists of better and of worse replies.

(The first RewardBench has one reply on each side, as `trl_preference` reads it.)

All replies answer one problem; those of `chosen` are `correct`, those of `rejected` are not. Since the right ones stand
first, whoever chooses among tied scores by their order is right too often. The id is `id`, else a hash of the prompt.

Source: Malik et al. 2025, arXiv:2506.01937, allenai/reward-bench-2; Liu et al. 2024, arXiv:2410.16184,
THU-KEG/RM-Bench.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freeprm.errors import DataError
from freeprm.formats.base import Written, write_each
from freeprm.io.columns import AnyPrompt, ForeignRow, Identifier, Replies, id_from
from freeprm.io.conversations import as_text
from freeprm.io.rows import Row, Source
from freeprm.types import Group, Rollout


class _Row(ForeignRow):
    id: Identifier | None = None
    prompt: AnyPrompt
    chosen: Replies
    rejected: Replies


@dataclass(frozen=True, kw_only=True)
class RewardBench:
    """Several replies of each class to a prompt."""

    def recognises(self, row: Row) -> bool:
        """Has `prompt`, and lists of texts `chosen` and `rejected`."""
        return "prompt" in row and all(_texts(row.get(side)) for side in ("chosen", "rejected"))

    def read(self, row: Row, source: Source) -> Iterable[Rollout]:
        """A rollout of each reply, the chosen ones first."""
        parsed = _Row.of(row, source)
        replies = [*((reply, True) for reply in parsed.chosen), *((reply, False) for reply in parsed.rejected)]
        problem_id, extra = parsed.id or id_from(parsed.prompt), parsed.others()
        for index, (reply, correct) in enumerate(replies):
            yield Rollout(
                problem_id=problem_id, sample_idx=index, prompt=parsed.prompt, response=reply,
                correct=correct, extra=extra,
            )  # fmt: skip

    def write(self, groups: Sequence[Group]) -> Written:
        """A row of each problem with a right and a wrong response; responses without a label are counted."""
        return write_each(groups, _row, needs="problems with both a right and a wrong response (`correct`)")


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _row(group: Group, skipped: Counter[str]) -> Row:
    chosen, rejected = (
        [rollout.response for rollout in group.rollouts if rollout.correct is side] for side in (True, False)
    )
    if not chosen or not rejected:
        raise DataError("problems without both a right and a wrong response")
    skipped["ungraded responses"] += len(group.rollouts) - len(chosen) - len(rejected)
    return {
        "id": group.problem_id, "prompt": as_text(group.prompt), "chosen": chosen, "rejected": rejected,
        "num_correct": len(chosen), "num_incorrect": len(rejected), "total_completions": len(chosen) + len(rejected),
    }  # fmt: skip


PLUGIN = RewardBench
