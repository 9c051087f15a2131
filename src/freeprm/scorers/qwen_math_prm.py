"""Qwen2.5-Math-PRM: two labels at a special token after each step.

    system: Please reason step by step, and put your final answer within \\boxed{}.
    user: {question}    assistant: {step 1}<extra_0>{step 2}<extra_0>

The score of a step is softmax(two logits)[1] at its `<extra_0>`. The marker replaces the whitespace between two steps,
as in the authors' `"<extra_0>".join(steps) + "<extra_0>"` of a response cut at blank lines.

The token is 151651 in this model's tokenizer; in the tokenizer of Qwen2.5 itself the same id is `<|quad_end|>` and
`<extra_0>` splits, so that one is refused. The code in the repository does not run with transformers from 4.54 on
(vllm-project/vllm#22398); the weights are read here without it.

Source: the card of Qwen/Qwen2.5-Math-PRM-7B and modeling_qwen2_rm.py beside it; Zhang et al. 2025, arXiv:2501.07301.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from freeprm.errors import DataError
from freeprm.models.heads import Layout, TwoLabelHead
from freeprm.models.scoring_input import ScoringInput, question, render, response_name, tokenise
from freeprm.scorers._released import ReleasedRecipe, refuse_marker, second_of_two
from freeprm.types import Rollout, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedTurn:
    """A conversation whose answer has a special token after each step."""

    system: str
    marker: str
    token: int

    def write(self, tokenizer: PreTrainedTokenizerBase, rollout: Rollout, steps: Sequence[Span]) -> ScoringInput:
        """The conversation, read at the markers."""
        prompt, name = question(rollout), response_name(rollout)
        for where, text in (("prompt", prompt), ("response", rollout.response)):
            at = text.find(self.marker)
            refuse_marker(rollout, None if at < 0 else at, marker=self.marker, where=where)
        parts = [rollout.response[step.start : step.stop].strip() + self.marker for step in steps]
        messages = [
            {"role": "system", "content": self.system},
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": "".join(parts)},
        ]
        text = render(tokenizer, messages, date=None)
        ids = tokenise(tokenizer, text, special=False).ids
        # A special token is made of its own letters only, which no text but ours has.
        positions = tuple(np.flatnonzero(ids == self.token).tolist())
        if len(positions) != len(steps):
            raise DataError(
                f"{name}: {len(steps)} steps, but {len(positions)} tokens {self.marker!r} in the scored text"
            )
        return ScoringInput(name=name, text=text, ids=ids, positions=positions, steps=tuple(steps))


PLUGIN = ReleasedRecipe(
    name="qwen_math_prm",
    released=("Qwen/Qwen2.5-Math-PRM-7B", "Qwen/Qwen2.5-Math-PRM-72B", "Qwen/Qwen2.5-Math-7B-PRM800K"),
    form=MarkedTurn(
        system=r"Please reason step by step, and put your final answer within \boxed{}.",  # card
        marker="<extra_0>",  # card
        token=151651,  # the step_tag_id of vLLM's Qwen2ForProcessRewardModelConfig
    ),
    tokens={"<extra_0>": 151651},
    head=Layout(architectures=("Qwen2ForProcessRewardModel",), build=TwoLabelHead, base_type="qwen2"),
    normalise=second_of_two,  # make_step_rewards: softmax(logits)[:, 1] (card)
    kind="probability",
    splitter="blank_lines",  # "we recommend using double line breaks" (card)
    aggregation="prod",  # arXiv:2501.07301, section 2.2: "the product of all the individual scores of each step"
)
