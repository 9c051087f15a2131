"""Step labels by an outcome-supervised verifier: a step is wrong where it loses the verifier's confidence.

With f_k the verifier's probability, read at the end of step k, that the final answer is or will be right:

    d_k = (f_k - f_(k-1)) / f_(k-1)        step k is wrong where d_k < threshold, and so is every step after it

The paper defines d between two steps, so the first step is labelled right, unless `prior` gives f before it. The
authors' code compares a step's last token with its first instead of with the step before, and also labels a step wrong
if f is below 1e-5, to avoid dividing by nearly 0; here d is computed from log f. That all steps after a wrong one are
wrong is in their code.

Source: Lu et al. 2024, arXiv:2405.16802, section 3; github.com/rookie-joe/AutoPSV, data_annotation.py.
"""

import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, expm1, isfinite, log, log1p
from typing import Any, Literal

from freeprm.core.flops import charge, forward_flops
from freeprm.core.ledger import SCORER
from freeprm.errors import ConfigError, DataError
from freeprm.io.progress import bar
from freeprm.labelers.base import Divided, Labelled, Notebook, StepLabels
from freeprm.models.encoding import TooLong
from freeprm.models.loading import Dtype, LoadOptions, device_name
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import Scorer, ScorerSource, Scores, ScoringOptions
from freeprm.types import Cost

BATCH = 1024
"""Responses read between two notes."""
_KEY = "read"


@dataclass(frozen=True, kw_only=True)
class AutoPSV:
    """Labels steps by the relative change of a verifier's confidence."""

    model: str
    """A folder of `freeprm train --objective osv`, or any model of the scorer."""
    scorer: str = "valued"
    """A member of `scorers` with step scores."""
    scores: Literal["log-odds", "probabilities"] = "log-odds"
    """Kind of the step scores."""
    threshold: float = -0.5
    """A step with d below it is wrong; -0.5 is the loss of half the confidence."""
    prior: float | None = None
    """f before the first step, e.g. the pass rate; without it the first step is right."""
    too_long: TooLong = "exclude"
    """What to do with a response longer than the verifier's context."""
    device: str | None = None
    """See `LoadOptions`, as the next two."""
    dtype: Dtype = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if not -1 <= self.threshold < 0:
            raise ConfigError(f"threshold: is {self.threshold}; expected a loss of confidence, from -1 to below 0")
        if self.prior is not None and not 0 < self.prior < 1:
            raise ConfigError(f"prior: is {self.prior}; expected a probability between 0 and 1")

    def label(self, responses: Sequence[Divided], *, seed: int, notebook: Notebook) -> Labelled:
        """See `Labeler`; without random choices, and without outcome labels.

        Raises:
            ModelError: the model cannot be used.
            DataError: the scorer gives no step scores.
        """
        parts = {note["part"]: note for note in notebook.known if _KEY in note}
        done = sum(len(part[_KEY]) for part in parts.values())
        starts = range(0, len(responses), BATCH)
        missing = [start for start in starts if start not in parts]
        with bar("label", len(responses), unit="responses", done=done) as advance:
            scorer = self._source().load() if missing else None
            for start in missing:
                assert scorer is not None
                batch = responses[start : start + BATCH]
                parts[start] = {"part": start, **self._read(scorer, batch)}
                notebook.note(parts[start])
                advance(len(batch))
        ordered = [parts[start] for start in starts]
        read = [scores for part in ordered for scores in part[_KEY]]
        counts = sum((Counter(part["counts"]) for part in ordered), Counter[str]())
        labels = {index: self._labels(scores) for index, scores in enumerate(read) if scores is not None}
        self._warn(labels.values())
        return Labelled(labels=labels, counts=counts, cost=self._cost(ordered, len(labels)))

    def identity(self) -> Mapping[str, Any]:
        """See `Labeler`."""
        return {
            **self._source().describe().identity(), "model": self.model, "scores": self.scores,
            "threshold": self.threshold, "prior": self.prior, "too_long": self.too_long,
        }  # fmt: skip

    def models(self) -> Mapping[str, str]:
        """See `Labeler`."""
        return {"verifier": self.model}

    def _source(self) -> ScorerSource:
        options = LoadOptions(device=self.device, dtype=self.dtype, trust_remote_code=self.trust_remote_code)
        return ScorerSource(source=self.model, scorer=self.scorer, options=options)

    def _read(self, scorer: Scorer, batch: Sequence[Divided]) -> dict[str, Any]:
        """The step scores of each response, None if it was left out; and counts and tokens."""
        usage = Usage()
        options = ScoringOptions(too_long=self.too_long)
        scores, counts = scorer.score_rollouts([item.rollout for item in batch], options, usage=usage)
        return {
            _KEY: [_step_scores(scores.get(index), item, scorer.about.name) for index, item in enumerate(batch)],
            "counts": {f"not labelled: {reason}": count for reason, count in counts.items()},
            "scored_tokens": usage.tokens, "sequence_tokens": sum(item.n_tokens for item in scores.values()),
        }  # fmt: skip

    def _labels(self, scores: Sequence[float]) -> StepLabels:
        logs = [_log_sigmoid(score) if self.scores == "log-odds" else _log(score) for score in scores]
        before = None if self.prior is None else log(self.prior)
        labels = fallen(logs, threshold=self.threshold, before=before)
        return StepLabels(labels=tuple(labels), values=tuple(exp(value) for value in logs))

    def _warn(self, labels: Collection[StepLabels]) -> None:
        """Warn where no step loses enough, as of a verifier that is never sure: nothing could be trained on that."""
        if not labels or not all(all(given.labels) for given in labels):
            return
        starts = [] if self.prior is None else [self.prior]
        changes = [
            (after - before) / before
            for given in labels
            for before, after in pairwise([*starts, *(value for value in given.values if value is not None)])
            if before > 0
        ]
        warnings.warn(
            f"autopsv: no step is labelled wrong. The largest relative change of the verifier's confidence is "
            f"{min(changes, default=0):.3f}, and threshold is {self.threshold}; set one nearer to 0, or train the "
            "verifier longer",
            stacklevel=4,
        )

    def _cost(self, parts: Sequence[Mapping[str, Any]], n_read: int) -> Cost:
        tokens = sum(part["scored_tokens"] for part in parts)
        mean_length = sum(part["sequence_tokens"] for part in parts) / max(n_read, 1)
        flops = forward_flops(self._source().shape(), tokens, mean_length)
        return Cost(scored_tokens=tokens, charges=(charge(SCORER, tokens, flops),), devices=(device_name(self.device),))


def fallen(logs: Sequence[float], *, threshold: float, before: float | None = None) -> list[bool]:
    """For each step whether it is right: no step up to it has lost more than the threshold allows.

    Args:
        logs: (K,) log f at each step's end.
        threshold: of the relative change, below 0.
        before: log f before the first step; None takes that one to be right.
    """
    labels: list[bool] = []
    last = logs[0] if before is None and logs else before
    for value in logs:
        assert last is not None
        labels.append((not labels or labels[-1]) and expm1(value - last) >= threshold)
        last = value
    return labels


def _step_scores(scores: Scores | None, item: Divided, name: str) -> list[float] | None:
    if scores is None:
        return None
    if scores.step_scores is None:
        raise DataError(f"{name}: scores whole responses; expected a verifier that gives a value at each step's end")
    if len(scores.step_scores) != len(item.steps):
        raise DataError(
            f"problem {item.rollout.problem_id!r}, sample {item.rollout.sample_idx}: {name} gives "
            f"{len(scores.step_scores)} scores for {len(item.steps)} steps; expected one a step"
        )
    return list(scores.step_scores)


def _log_sigmoid(value: float) -> float:
    return -log1p(exp(-value)) if value >= 0 else value - log1p(exp(value))


def _log(probability: float) -> float:
    if not 0 < probability <= 1 or not isfinite(probability):
        raise DataError(f"a step score of {probability}; expected a probability, or scores=log-odds")
    return log(probability)


PLUGIN = AutoPSV
