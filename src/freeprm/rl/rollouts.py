"""Responses of a policy that is being trained: drawn as the `hf` engine draws, and labelled as `freeprm grade` does."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel
from trl.trainer.grpo_trainer import GRPOTrainer

from freeprm.engines._reading import begin
from freeprm.engines.base import Request
from freeprm.engines.hf.decoding import Wanted, decode, plan
from freeprm.engines.hf.engine import drawing_limits
from freeprm.executors.local import Local
from freeprm.models.lengths import alike
from freeprm.models.loading import Backbone
from freeprm.settings import GradeSettings, RLSettings, SamplingParams
from freeprm.stages.grading import graded, judges_of
from freeprm.types import Problem, Prompt, Rollout

Row = dict[str, Any]


def dataset_rows(problems: Sequence[Problem], *, conversational: bool) -> list[Row]:
    """Problems as TRL takes them; `conversational` where the policy has a chat template."""
    return [
        {"prompt": _turns(problem.prompt) if conversational else problem.prompt, "problem_id": problem.problem_id,
         "answer": problem.answer}
        for problem in problems
    ]  # fmt: skip


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]


class Drawer:
    """A `rollout_func` of TRL: a prompt is read once for all of its samples, token by token on keys that are kept.

    A sample depends on its prompt, its number and the seed, so that a run that was resumed draws what an uninterrupted
    one does, and all evaluations, of any run, draw by the same random numbers.

    Args:
        backbone: the policy.
        params: how to draw.
    """

    def __init__(self, backbone: Backbone, params: SamplingParams):
        self._backbone, self._params = backbone, params

    def __call__(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        """Draw one response a prompt; equal prompts are side by side.

        Returns:
            `prompt_ids`, `completion_ids` and `logprobs`, as TRL takes them.
        """
        policy: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
        trains = policy.training
        n = int((trainer.num_generations if trains else trainer.num_generations_eval) or 1)
        # Numbers of an evaluation are the same each time; those of training are never used twice.
        first = trainer.state.global_step * n if trains else 0
        params = replace(self._params, seed=self._params.seed + (not trains))
        offset = trainer.accelerator.process_index * len(prompts)
        requests: list[Request] = []
        places: list[tuple[str, int]] = []
        for index, prompt in enumerate(prompts):
            number = first + (offset + index) % n
            if index == 0 or prompt != prompts[index - 1]:
                own = prompt if isinstance(prompt, str) else tuple(prompt)
                requests.append(Request(problem_id=str(len(requests)), prompt=own, sample_idxs=()))
            last = requests[-1]
            requests[-1] = replace(last, sample_idxs=(*last.sample_idxs, number))
            places.append((last.problem_id, number))
        policy.eval()
        drawn = self._drawn(replace(self._backbone, model=policy), requests, params)
        policy.train(trains)
        ids = [drawn[place] for place in places]
        return {
            "prompt_ids": [list(prompt) for prompt, _ in ids], "completion_ids": [list(own) for _, own in ids],
            "logprobs": None,
        }  # fmt: skip

    def _drawn(
        self, backbone: Backbone, requests: Sequence[Request], params: SamplingParams
    ) -> dict[tuple[str, int], tuple[tuple[int, ...], tuple[int, ...]]]:
        """Ids of prompt and response by problem and number."""
        begun = begin(
            backbone.tokenizer, requests, config=backbone.model.config, max_length=backbone.max_length,
            model=backbone.source,
        )  # fmt: skip
        wanted = [
            Wanted(problem_id=one.problem_id, prompt=one.prompt, ids=item.ids, sample_idxs=one.sample_idxs)
            for one, item in zip(requests, begun, strict=True)
        ]
        by_problem = {item.problem_id: item.ids for item in wanted}
        found = {}
        for part in alike(wanted, backbone.model.config, length=lambda item: len(item.ids)):
            planned = plan(part, drawing_limits(backbone, params, part))
            for sampled in decode(backbone, planned.groups, params=params, room=planned.room):
                assert sampled.token_ids is not None
                ids = by_problem[sampled.problem_id], sampled.token_ids
                found[sampled.problem_id, sampled.sample_idx] = ids
        return found


class Labels:
    """A reward function of TRL: 1 for a right answer, 0 for a wrong one or none, None where it cannot be judged."""

    __name__ = "accuracy"

    def __init__(self, settings: RLSettings):
        how = GradeSettings(
            grader=settings.grader, grader_options=settings.grader_options, extractors=settings.extractors
        )
        self._how, self._judges = how, judges_of(how, Local())

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, problem_id: Sequence[str],
        answer: Sequence[str | None], **columns: Any,
    ) -> list[float | None]:  # fmt: skip
        """The label of each completion."""
        rollouts = [
            Rollout(
                problem_id=problem_id[index], sample_idx=index,
                prompt=prompt if isinstance(prompt, str) else tuple(prompt),
                response=said if isinstance(said, str) else said[-1]["content"], answer=answer[index],
            )
            for index, (prompt, said) in enumerate(zip(prompts, completions, strict=True))
        ]  # fmt: skip
        labels = [row["correct"] for row in graded(rollouts, [], self._judges, self._how.no_answer)]
        return [None if label is None else float(label) for label in labels]
