"""A method's bill: the ledger of its run folders and of all that they were made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from freeprm.core.ledger import DEVELOPMENT, USE, Ledger, Paid, ledger_of
from freeprm.io.lineage import TRAIN, Run, descent, runs_in, with_ancestors


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a method cost, and what is to be known in reading it."""

    ledger: Ledger
    runs: tuple[Run, ...]
    """Ancestors first."""
    responses: float | None
    """Labelled responses an instruction that the last model was trained on; None where nothing was trained."""
    notes: tuple[str, ...]
    """What is missing from it, or cannot be told apart."""


def ledger(folders: Sequence[Path]) -> Ledger:
    """The ledger of the runs in these folders and in folders of theirs, without what those were made from.

    Raises:
        RecordError: no such folder, or one without a finished run.
    """
    return _ledger(runs_in(folders))


def bill(folders: Sequence[Path]) -> Bill:
    """The bill of a method, found from its folders: of a training run, a score, a selection, or a folder of them.

    Raises:
        RecordError: no such folder, or one without a finished run.
    """
    runs = with_ancestors(runs_in(folders))
    return Bill(ledger=_ledger(runs), runs=tuple(runs), responses=_responses(runs), notes=tuple(_notes(runs)))


def _ledger(runs: Sequence[Run]) -> Ledger:
    made = descent(runs)
    return ledger_of(
        Paid(
            folder=str(run.folder),
            stage=run.stage,
            purpose=DEVELOPMENT if run.folder in made else USE,
            cost=run.cost,
        )
        for run in runs
    )


def _responses(runs: Sequence[Run]) -> float | None:
    trained = [run.counts for run in runs if run.stage == TRAIN]
    if not trained:
        return None
    counts = trained[-1]
    return float(counts["right responses"] + counts["wrong responses"]) / float(counts["prompts"])


def _notes(runs: Sequence[Run]) -> list[str]:
    notes = [f"{run.folder}: was made from {name}, which is gone: not charged" for run in runs for name in run.lost]
    old = [run for run in runs if run.cost.flops and not run.cost.charges]
    if old:
        notes.append(
            f"{old[0].folder}{f' and {len(old) - 1} more' if len(old) > 1 else ''}: written before charges were "
            "itemised, so its reference is not told from the rest, nor attention from parameters"
        )
    trained = any(run.stage == TRAIN for run in runs)
    notes += [
        f"{run.folder}: does not say where its reward model is; name that folder too, or its development is not charged"
        for run in runs
        if run.stage == "score" and not run.names_models and not trained
    ]
    return notes
