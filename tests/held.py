"""A scorer whose batches a test can hold, and look at."""

from collections import Counter
from collections.abc import Sequence
from threading import Event

from freeprm.core.flops import ModelShape
from freeprm.errors import DataError
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import DEFAULT_SCORING, Description, Scorer, Scores, ScoringOptions
from freeprm.types import Rollout
from patience import PATIENCE


class Held(Scorer):
    """Scores a response with its length, batch by batch as it is let; a response `bad` cannot be scored."""

    def __init__(self) -> None:
        self.about = Description(name="held", kind="unbounded")
        self.go, self.entered = Event(), Event()
        self.go.set()
        self.batches: list[list[tuple[str, str]]] = []
        """Prompt and response of each, by batch; without the one that tries the model."""
        self.options: list[ScoringOptions] = []

    def shape(self) -> ModelShape:
        raise NotImplementedError

    def score_rollouts(
        self, rollouts: Sequence[Rollout], options: ScoringOptions = DEFAULT_SCORING, *, usage: Usage | None = None
    ) -> tuple[dict[int, Scores], Counter[str]]:
        if usage is not None:
            self.batches.append([(str(item.prompt), item.response) for item in rollouts])
            self.options.append(options)
            self.entered.set()
            assert self.go.wait(PATIENCE)
        for item in rollouts:
            if item.response == "bad":
                raise DataError(f"sample {item.sample_idx}: bad")
            if item.response == "broken":
                raise ZeroDivisionError
        return {i: Scores(score=float(len(item.response)), n_tokens=1) for i, item in enumerate(rollouts)}, Counter()
