"""`/score` and `/select`: step rewards of responses to one prompt, and the choice among them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import Field

from freeprm.core.score_kinds import BY_KIND
from freeprm.core.selectors import Chosen
from freeprm.errors import DataError
from freeprm.scorers._scored import Scored
from freeprm.scorers.base import ScoringOptions
from freeprm.serving.requests import Asked, Text
from freeprm.serving.selecting import Selected, scored_row, select_among, with_answers
from freeprm.serving.service import Service, service_of, why_left_out
from freeprm.types import Rollout, Span

routes = APIRouter()
Found = dict[str, Any]


class ScoreRequest(Asked):
    """Responses to one prompt, and what is wanted of them."""

    reward: str | None = None
    """Of a log-ratio: with-reference, without-reference or reference-only."""
    splitter: str | None = None
    """auto, step_markers, lines, blank_lines, sentences or tokens."""
    aggregator: str | None = None
    """How `score` comes of step scores: min, mean, sum, last, ..."""
    tokens: bool = False
    """Of a log-ratio: answer with token rewards too."""
    too_long: Literal["error", "exclude", "truncate"] | None = None
    """Responses that the context does not hold; `exclude` answers `null` with the reason for these."""


class SelectRequest(Asked):
    """Responses to one prompt, to choose among."""

    answers: list[Text | None] | None = None
    """The final answer of each response; extracted by default."""
    reward: str | None = None
    splitter: str | None = None
    aggregator: str | None = None
    weighting: str = BY_KIND
    """by_kind, sigmoid, raw, standardised, softmax, rank or uniform: how scores become weights of a vote."""
    weight_scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Scores are multiplied by it before they are weights."""


@routes.post("/score")
async def score(asked: ScoreRequest, service: Annotated[Service, Depends(service_of)]) -> Found:
    """Steps with rewards, q values and P(correct), for each response."""
    combine = service.aggregator(asked.aggregator)
    rollouts = asked.rollouts()
    options = service.options(
        reward=asked.reward, split=asked.splitter, tokens=asked.tokens, too_long=asked.too_long
    )  # fmt: skip
    if options.too_long == "exclude":
        found = await service.score(rollouts, options)
    else:
        found = list(await service.score_all(rollouts, options))
    return {
        **_of_scorer(service, options.rewards, combine),
        "results": [
            {"index": index, "error": why_left_out(rollouts[index])}
            if scored is None
            else {"index": index, **shown(scored, combine)}
            for index, scored in enumerate(found)
        ],
    }


@routes.post("/select")
async def select(asked: SelectRequest, service: Annotated[Service, Depends(service_of)]) -> Found:
    """Best-of-N, the weighted vote and the majority, as `freeprm select` chooses them."""
    options = service.options(reward=asked.reward, split=asked.splitter)
    selected = await selection(asked, service, options)
    return {
        **_of_scorer(service, options.rewards, service.aggregator(asked.aggregator)),
        "weighting": selected.weighting,
        **{name: _choice(selected.rows, choice) for name, choice in selected.choices.items()},
        "candidates": [
            {
                "index": index, "score": selected.scores[index], "weight": selected.weights[index],
                "answer": selected.rows[index].pred,
            }
            for index in selected.ranked
        ],
    }  # fmt: skip


async def selection(asked: SelectRequest, service: Service, options: ScoringOptions) -> Selected:
    """The choice among the responses of a request."""
    combine, rollouts = service.aggregator(asked.aggregator), asked.rollouts()
    if asked.answers is not None and len(asked.answers) != len(rollouts):
        raise DataError(f"{len(asked.answers)} answers of {len(rollouts)} responses; expected one each, or none")
    found = await service.score_all(rollouts, options)
    if asked.answers is None:
        rows = with_answers([scored_row(one) for one in found])
    else:
        rows = [scored_row(one, pred=answer) for one, answer in zip(found, asked.answers, strict=True)]
    return select_among(rows, aggregator=combine, by=asked.weighting, weight_scale=asked.weight_scale)


def shown(scored: Scored, combine: str) -> Found:
    """One response's scores."""
    scores, text = scored.scores, scored.rollout.response
    found: Found = {"score": scored.score(combine), "p_correct": scored.p, "n_tokens": scores.n_tokens}
    if scores.reward is not None:
        found["reward"] = scores.reward
    if scores.step_scores is not None:
        q, p = scored.q, scored.p_correct
        found["steps"] = [
            {
                "start": span.start, "stop": span.stop, "text": text[span.start : span.stop], "score": value,
                **({} if q is None else {"q": q[index]}), **({} if p is None else {"p_correct": p[index]}),
            }
            for index, (span, value) in enumerate(zip(scores.steps, scores.step_scores, strict=True))
        ]  # fmt: skip
        found["lowest_step"] = min(range(len(scores.step_scores)), key=scores.step_scores.__getitem__)
    if "token_rewards" in scores.columns:
        spans = [Span(*span) for span in scores.columns["token_spans"]]
        found["tokens"] = [
            {"start": span.start, "stop": span.stop, "reward": reward}
            for span, reward in zip(spans, scores.columns["token_rewards"], strict=True)
        ]
    return found


def _of_scorer(service: Service, rewards: tuple[str, ...], combine: str) -> Found:
    about = service.about
    found: Found = {"model": about.source or about.name, "scorer": about.name, "kind": about.kind}
    if rewards:
        found["reward"] = rewards[0]
    return {**found, **({} if about.splitter is None else {"aggregator": combine})}


def _choice(rows: Sequence[Rollout], choice: Chosen) -> Found | None:
    """What was chosen; None where no response has an answer to vote for."""
    if choice.sample is None:
        return None
    chosen = rows[choice.sample]
    return {"index": choice.sample, "answer": chosen.pred, "response": chosen.response, "tied": choice.tied > 0}
