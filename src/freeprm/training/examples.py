"""From groups of graded rollouts to examples: encode, fit the context, attach what the rewards are formed of."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import PartialState
from torch import Tensor

from freeprm.errors import DataError
from freeprm.models.encoding import Encoded, Fitted, answers, check_vocabulary, encode, fit
from freeprm.models.loading import context_length, load_config, load_tokenizer
from freeprm.models.prompts import warn_of_plain_prompts
from freeprm.models.scoring_input import response_name
from freeprm.training.batches import Example, step_reader
from freeprm.training.reference import FrozenReference
from freeprm.training.setup import TrainingSetup
from freeprm.training.steps import TokenSteps, in_tokens
from freeprm.types import Group, Rollout


class _Prepared(NamedTuple):
    """One response that fits the context."""

    row: int
    """Among all rollouts."""
    encoded: Encoded
    steps: TokenSteps | None


class GroupPreparer:
    """Makes examples.

    Args:
        setup: of the training run; the start gives the tokenizer.
        cache: where reference log-probabilities are kept; shared by all processes. None leaves them out.
        process: this one among those that train together; each computes its share of the reference.
        mixed_precision, run: see `FrozenReference`.
    """

    def __init__(
        self, setup: TrainingSetup, cache: Path | None, *, process: PartialState | None = None,
        mixed_precision: str = "no", run: str | None = None,
    ):  # fmt: skip
        settings, start = setup.settings, setup.start
        self.tokenizer = load_tokenizer(
            start, trust_remote_code=settings.trust_remote_code, template_date=settings.template_date
        )
        warn_of_plain_prompts(self.tokenizer, model=settings.model)
        self.reference = (
            FrozenReference(
                settings,
                start,
                self.tokenizer,
                cache or Path(),
                process or PartialState(),
                mixed_precision=mixed_precision,
                run=run,
            )
            if setup.reward.valuation is None
            else None
        )
        """Of log-ratios, also where training goes without it; values have none."""
        self._with_logps = cache is not None
        self._settings, self._objective, self._reward = settings, setup.objective, setup.reward
        self._step_reader = step_reader(settings, setup.objective)
        self._config = load_config(start, trust_remote_code=settings.trust_remote_code)
        context = context_length(self._config)
        self._max_length = min(settings.max_length or context, context)

    @property
    def scored_tokens(self) -> int:
        """Tokens that went through the reference for this run, over all processes and sessions."""
        return 0 if self.reference is None else self.reference.scored_tokens

    def examples(self, groups: Sequence[Group], *, counts: Counter[str] | None = None) -> list[Example]:
        """Examples of the responses that fit the context; counts what does not, and what is used.

        Args:
            groups: graded, none empty, with the steps and labels that the objective needs.
            counts: added to.

        Raises:
            DataError: a response is not graded, nothing to train on fits the context, labels are all alike, or a KL is
                needed and there is only one prompt.
        """
        counts = Counter() if counts is None else counts
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        ungraded = next((rollout for rollout in rollouts if rollout.correct is None), None)
        if ungraded is not None and not self._objective.needs_step_labels:
            raise DataError(f"{response_name(ungraded)}: is not graded; grade it, or leave it out as read_groups does")
        prepared = self._fitted(rollouts, counts)
        others: Sequence[Encoded] = ()
        if self._objective.needs_kl:
            prepared, others = self._with_mismatched(groups, prepared, counts)
        by_row = {one.row: index for index, one in enumerate(prepared)}
        row = count()
        owned = [[by_row[at] for at in islice(row, len(one.rollouts)) if at in by_row] for one in groups]
        logps = self._reference_logps(rollouts, prepared, others, owned, counts)
        examples = []
        for own in owned:
            responses = [prepared[index] for index in own]
            places = [self._reward.places(one.encoded, one.steps) for one in responses]
            steps = [one.steps for one in responses] if self._objective.needs_steps else []
            example = Example(
                encoded=tuple(one.encoded for one in responses),
                labels=tuple(rollouts[one.row].correct is True for one in responses),
                ref_logps=tuple(logps[index] for index in own) if logps else (),
                places=tuple(at for at in places if at is not None),
                steps=tuple(found for found in steps if found is not None),
                mismatched=tuple(others[index] for index in own) if others else (),
                mismatched_ref_logps=tuple(logps[len(prepared) + index] for index in own) if others and logps else (),
            )
            if self._objective.needs_pairs and not example.n_pairs:
                counts["groups that the context leaves with one class"] += 1
            elif own:
                examples.append(example)
        self._count_used(examples, counts)
        return examples

    def _fitted(self, rollouts: Sequence[Rollout], counts: Counter[str]) -> list[_Prepared]:
        """Those that fit the context, with at least one step label where labels are needed."""
        read = self._read(rollouts)
        check_vocabulary(read.encoded, self._config, model=self._settings.model)
        fitted = fit(read.encoded, max_length=self._max_length, too_long=self._settings.too_long)
        counts.update(read.counts + fitted.counts)
        prepared = []
        for row, item in zip((read.kept[place] for place in fitted.kept), fitted.encoded, strict=True):
            steps = None
            if self._step_reader is not None:
                found = self._step_reader.in_text(rollouts[row])
                assert found is not None  # those without labels have been left out of the groups
                steps = in_tokens(found, item, rollouts[row].response, counts)
                if self._objective.needs_step_labels and not np.isfinite(steps.labels).any():
                    counts["responses without a step label within the context"] += 1
                    continue
            prepared.append(_Prepared(row, item, steps))
        return prepared

    def _read(self, rollouts: Sequence[Rollout]) -> Fitted[Encoded]:
        """Responses as they are rewarded."""
        encoded = encode(self.tokenizer, rollouts)
        if self._settings.reasoning == "exclude":
            return answers(encoded, [rollout.response for rollout in rollouts])
        return Fitted(kept=list(range(len(encoded))), encoded=encoded, counts=Counter())

    def _with_mismatched(
        self, groups: Sequence[Group], prepared: Sequence[_Prepared], counts: Counter[str]
    ) -> tuple[list[_Prepared], Sequence[Encoded]]:
        """For each response its prompt with a response to another one, cut to the context; and those that have one."""
        drawn = mismatches(groups, seed=self._settings.seed)
        if not drawn:
            raise DataError(
                "this objective estimates a KL from responses to other prompts; expected at least two prompts"
            )
        read = self._read([drawn[one.row] for one in prepared])
        fitted = fit(read.encoded, max_length=self._max_length, too_long="truncate")
        if without := len(prepared) - len(fitted.kept):
            counts["responses whose prompt leaves no room for one to another"] += without
        return [prepared[read.kept[place]] for place in fitted.kept], fitted.encoded

    def _reference_logps(
        self, rollouts: Sequence[Rollout], prepared: Sequence[_Prepared], others: Sequence[Encoded],
        owned: Sequence[Sequence[int]], counts: Counter[str],
    ) -> list[Tensor]:  # fmt: skip
        """One (T,) tensor a response, those to other prompts last; none where values are read.

        Args:
            owned: indices into `prepared`, and into `others` if there are any, by group; in ascending order.
        """
        if self.reference is None or not self._with_logps:
            return []
        encoded = [one.encoded for one in prepared]
        stored = self.reference.stored([rollouts[one.row] for one in prepared], encoded, counts)
        grouped = [[items[index] for index in own] for items in (encoded, others) if items for own in owned if own]
        return self.reference.logprobs(grouped, stored)

    def _count_used(self, examples: Sequence[Example], counts: Counter[str]) -> None:
        """Raises: DataError, if only one class of responses, or no or one kind of step label, is left."""
        labels = [label for example in examples for label in example.labels]
        counts["right responses"] += sum(labels)
        counts["wrong responses"] += len(labels) - sum(labels)
        counts["groups"] += len(examples)
        if not self._objective.needs_step_labels:
            if not counts["right responses"] or not counts["wrong responses"]:
                raise DataError(
                    f"{counts['right responses']} right and {counts['wrong responses']} wrong responses fit "
                    f"{self._max_length} tokens with their prompts; expected both. Raise max_length, or truncate with "
                    "too_long=truncate"
                )
            return
        if not examples:
            raise DataError("no response with a step label fits the context; raise max_length, or too_long=truncate")
        step_labels = np.concatenate([steps.labels for example in examples for steps in example.steps])
        known = step_labels[np.isfinite(step_labels)]
        if known.min() == known.max():
            raise DataError(f"all {len(known)} step labels are {known[0]:g}; expected right steps and wrong ones")
        found = {"labelled steps": len(known), "steps without a label": len(step_labels) - len(known)}
        counts.update(+Counter(found))


def mismatches(groups: Sequence[Group], *, seed: int) -> list[Rollout]:
    """For each response, its prompt with a response to some other prompt; nothing where there is only one prompt.

    Drawn once for the whole data, so the pairing does not depend on batches, and cannot match a response to its own
    prompt.
    """
    if len({group.problem_id for group in groups}) < 2:
        return []
    rng = random.Random(f"mismatch/{seed}")
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    drawn = []
    for own in rollouts:
        other = own
        while other.problem_id == own.problem_id:
            other = rng.choice(rollouts)
        drawn.append(replace(other, problem_id=own.problem_id, prompt=own.prompt, correct=None))
    return drawn
