"""Skywork-o1-Open-PRM: a value at the line break after each line.

    {bos}{question}\\n{line 1}\\n{line 2}\\n

The score of a step is sigmoid(value) at the line break that ends it. Each line is tokenised by itself, and the line
break is a token of its own (198), never merged with the text before it, as in the authors' code: the only recipe here
that does not tokenise the text as a whole.

The authors score a blank line as a step. Here it belongs to the step before it, whose score is read at the break after
its last words: the authors' number for that line.

Source: model_utils/io_utils.py and prm_model.py of SkyworkAI/skywork-o1-prm-inference, as copied in openreasoner/openr.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from freeprm.errors import ModelError, SpanError
from freeprm.models.heads import Layout, ValueHead
from freeprm.models.scoring_input import ScoringInput, question, response_name
from freeprm.scorers._released import ReleasedRecipe, sigmoid
from freeprm.types import Rollout, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Lines, each tokenised by itself, with a break of its own after it."""

    marker: str
    token: int

    def write(self, tokenizer: PreTrainedTokenizerBase, rollout: Rollout, steps: Sequence[Span]) -> ScoringInput:
        """The question and the lines, read at the breaks that end steps."""
        name = response_name(rollout)
        if not tokenizer.bos_token:
            raise ModelError(f"{tokenizer.name_or_path}: no beginning-of-sequence token, which the recipe opens with")
        head = str(tokenizer.bos_token) + question(rollout) + self.marker
        lines = rollout.response.rstrip().split(self.marker)
        ids = self._ids(tokenizer, head)
        breaks, at = [], 0  # the break's position, and the character where its line ends
        for line in lines:
            ids += [*(self._ids(tokenizer, line) if line else []), self.token]
            at += len(line)
            breaks.append((at, len(ids) - 1))
            at += len(self.marker)
        positions = tuple(self._position(breaks, rollout, step, name=name) for step in steps)
        text = head + self.marker.join(lines) + self.marker
        return ScoringInput(name=name, text=text, ids=np.array(ids, np.int32), positions=positions, steps=tuple(steps))

    def _position(self, breaks: Sequence[tuple[int, int]], rollout: Rollout, step: Span, *, name: str) -> int:
        last = step.start + len(rollout.response[step.start : step.stop].rstrip())
        for end, position in breaks:
            if last <= end:
                if rollout.response[last:end].strip():
                    break
                return position
        raise SpanError(
            f"{name}: a step ends at character {last}, inside a line, but this model is read at ends of lines only; "
            "choose the splitter 'lines', or steps that are whole lines"
        )

    def _ids(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])


PLUGIN = ReleasedRecipe(
    name="skywork_o1_prm",
    released=("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B", "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B"),
    form=Lines(marker="\n", token=198),  # prepare_input(..., step_token="\n"): encode("\n")[-1] (card, io_utils.py)
    tokens={"\n": 198},
    head=Layout(architectures=("Qwen2ForPrmModel", "Qwen2ForRewardModel"), build=ValueHead, base_type="qwen2"),
    normalise=sigmoid,  # return_probs=True: sigmoid(value) (prm_model.py)
    kind="probability",
    splitter="lines",
    aggregation="mean",  # "simple average", as the card of EurusPRM has it
)
