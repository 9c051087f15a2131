"""A scorer whose process is killed once, in the middle of its work; it takes notes in the folder of its model."""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from freeprm.core.flops import ModelShape
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import DEFAULT_SCORING, Description, Scorer, ScorerSource, Scores, ScoringOptions
from freeprm.types import Rollout

NOTES = "notes.txt"
"""A line whenever responses are begun, and when they are finished: `begun p3`, `finished p3`, by the first problem."""
LAST_WORD = "die here"
"""In the response at which the process is killed, the first time that it comes."""


class Dying(Scorer):
    """Scores a response with its length."""

    def __init__(self, folder: Path):
        self.about = Description(name="dying", source=str(folder), kind="unbounded")
        self._folder = folder

    def shape(self) -> ModelShape:
        return ModelShape(n_parameters=1, n_layers=1, attention_width=1)

    def score_rollouts(
        self, rollouts: Sequence[Rollout], options: ScoringOptions = DEFAULT_SCORING, *, usage: Usage | None = None
    ) -> tuple[dict[int, Scores], Counter[str]]:
        self._note(f"begun {rollouts[0].problem_id}")
        if any(LAST_WORD in item.response for item in rollouts) and not (self._folder / "dead").exists():
            (self._folder / "dead").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self._note(f"finished {rollouts[0].problem_id}")
        return {i: Scores(score=float(len(item.response)), n_tokens=1) for i, item in enumerate(rollouts)}, Counter()

    @staticmethod
    def describe(source: ScorerSource) -> Description:
        return Dying(source.folder).about

    @staticmethod
    def load(source: ScorerSource) -> Scorer:
        return Dying(source.folder)

    def _note(self, line: str) -> None:
        with (self._folder / NOTES).open("a") as file:
            file.write(f"{line}\n")
