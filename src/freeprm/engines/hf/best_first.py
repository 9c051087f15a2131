"""Best-of-N by a reward model while the samples are being drawn: a sample that has fallen behind is not finished.

The search is that of `models.best_of_n_search`, over samples that are continued (`writing`) and scored (`judging`) step
by step, so the choice is that of complete sampling and scoring.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from freeprm.core.early_stopping import ScoredStep
from freeprm.engines.hf.decoding import Wanted
from freeprm.engines.hf.judging import Candidate, Judge, ScoredSample, advance
from freeprm.engines.hf.writing import Writer
from freeprm.models.best_of_n_search import search
from freeprm.models.incremental import ReadPrompt


class BestOfSamples(NamedTuple):
    """A problem's samples and the best of them."""

    problem_id: str
    samples: tuple[ScoredSample, ...]
    best: int | None
    """Index of a sample; None if none can be scored."""


def best_of_samples(
    problems: Iterable[Wanted], *, writer: Writer, judge: Judge, batch: int = 1
) -> Iterator[BestOfSamples]:
    """The best sample of each problem by the lowest step reward, once decided; see `best_of_n_search.search`.

    Raises:
        ConfigError: a batch below 1.
        ModelError: the reward model's tokenizer splits the beginning of a text otherwise once it is longer.
    """
    for problem, candidates, found in search(problems, source=_Drawn(writer, judge), batch=batch):
        samples = tuple(ScoredSample(writer.sampled(one.draft), one.step_scores) for one in candidates)
        best = found.get(len(samples))
        yield BestOfSamples(problem.problem_id, samples, None if best is None else best.best)


class _Drawn:
    """A `CandidateSource` that continues samples when their steps are requested."""

    def __init__(self, writer: Writer, judge: Judge):
        self._writer, self._judge = writer, judge
        self._n_samples = self._n_tokens = 0  # of decided problems

    def has_room(self, problem: Wanted, others: Sequence[Wanted]) -> bool:
        """See `CandidateSource`; expects the mean length of earlier samples, at first the maximum."""
        mean = self._n_tokens / self._n_samples if self._n_samples else self._writer.room(problem)
        size = len(problem.ids) + mean * len(problem.sample_idxs)
        capacity = min(self._writer.capacity, self._judge.rewards.capacity) / 2  # of the models that are read, and it
        return (len(others) + 1) * size <= capacity

    def open(self, problem: Wanted) -> tuple[list[Candidate], dict[int, int]]:
        """See `CandidateSource`."""
        prompts: dict[bytes, ReadPrompt] = {}
        noted: dict[bytes, Tensor] = {}
        candidates = [Candidate(draft, prompts, noted) for draft in self._writer.open(problem)]
        return candidates, {len(candidates): len(candidates)}

    def advance(self, candidates: Sequence[Candidate]) -> list[ScoredStep | None]:
        """See `CandidateSource`; steps that end with the same token count as one."""
        n_scored = {id(one.draft): len(one.scores) for one in candidates}
        advance(candidates, writer=self._writer, judge=self._judge)
        return [
            None
            if one.is_out
            else ScoredStep(min(one.scores[n_scored[id(one.draft)] :]), one.draft.stop_reason is not None)
            for one in candidates
        ]

    def close(self, candidates: Sequence[Candidate]) -> None:
        """See `CandidateSource`."""
        drafts = [one.draft for one in candidates]
        self._n_samples += len(drafts)
        self._n_tokens += sum(len(draft.ids) for draft in drafts)
        self._writer.close(drafts)
        for prompt in candidates[0].prompts.values():
            self._judge.rewards.close(prompt)
