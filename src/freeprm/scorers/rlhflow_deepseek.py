"""RLHFlow's process reward models: a conversation in which each step is a turn and the model answers + or -.

    user: {question} {step 1}    assistant: +    user: {step 2}    assistant: +    ...

The score of a step is softmax(logits of + and -)[+] at the token that predicts the step's own answer: position -3 of
the conversation up to there, which ends `... \\n\\n`, `+`, `<|eot_id|>`. Every earlier answer is +, whatever the model
would predict, so all steps are read in one pass. Whitespace around a step is outside its turn.

The authors cut this model's data at blank lines. ProcessBench differs (a blank line between question and step, and the
model's own answers instead of +); this file follows the authors.

Source: RLHFlow/RLHF-Reward-Modeling, math-rm/prm_evaluate.py at 5b2a281 and its README; Xiong et al. 2024.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from freeprm.errors import DataError
from freeprm.models.scoring_input import ScoringInput, position_of, question, render, response_name, tokenise
from freeprm.scorers._released import ReleasedRecipe, first_of_two
from freeprm.types import Rollout, Span

_PROBE = "freeprm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """A conversation with a turn a step."""

    between: str
    """Between the question and the first step."""
    answer: str
    token: int
    """The answer's id."""
    date: str
    """Default date of Llama 3.1's template."""

    def write(self, tokenizer: PreTrainedTokenizerBase, rollout: Rollout, steps: Sequence[Span]) -> ScoringInput:
        """The conversation, read at the token before each answer."""
        name = response_name(rollout)
        texts = [rollout.response[step.start : step.stop].strip() for step in steps]
        texts[0] = question(rollout) + self.between + texts[0]
        text = self._render(tokenizer, texts)
        # The template's text from the end of a step to the end of its answer.
        answered = self._render(tokenizer, [_PROBE]).rpartition(_PROBE)[2].rstrip()
        starts = [found.start() for found in re.finditer(re.escape(answered), text)]
        if len(starts) != len(texts):
            raise DataError(
                f"{name}: {len(texts)} steps, but the conversation has {len(starts)} answers; the prompt or the "
                f"response holds the template's own marks ({answered!r})"
            )
        tokens = tokenise(tokenizer, text, special=False)
        within = answered.rindex(self.answer)
        marks = [Span(start + within, start + within + len(self.answer)) for start in starts]
        positions = tuple(position_of(tokens, mark, expected=self.token, name=name) - 1 for mark in marks)
        return ScoringInput(name=name, text=text, ids=tokens.ids, positions=positions, steps=tuple(steps))

    def _render(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> str:
        turns = [({"role": "user", "content": text}, {"role": "assistant", "content": self.answer}) for text in texts]
        return render(tokenizer, [message for turn in turns for message in turn], date=self.date)


PLUGIN = ReleasedRecipe(
    name="rlhflow_deepseek",
    released=("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data",),
    # `prompt + " " + ans_list[0]` and {"content": "+", "role": "assistant"} (prm_evaluate.py:50-56); Llama 3.1's
    # tokenizer_config.json: date_string is "26 Jul 2024" if not defined
    form=Turns(between=" ", answer="+", token=10, date="26 Jul 2024"),
    tokens={"+": 10, "-": 12},  # encode("+")[-1], encode("-")[-1] (prm_evaluate.py:74-76), Llama 3's vocabulary
    head=(10, 12),
    normalise=first_of_two,  # logits[:, -3, [+, -]].softmax(-1)[:, 0] (prm_evaluate.py:60-61)
    kind="probability",
    splitter="blank_lines",  # ans.split("\n\n") (prm_evaluate.py:47)
    aggregation="mean",  # sum / len (prm_evaluate.py:67); not min
)
