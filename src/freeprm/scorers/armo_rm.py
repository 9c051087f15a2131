"""ArmoRM: nineteen objectives at the end of a conversation, weighted by a gate that reads the prompt's end.

The gate reads the hidden state at the `<|eot_id|>` that closes the last user turn, the first token of

    <|eot_id|><|start_header_id|>assistant<|end_header_id|>\\n\\n

and the objectives are read at the last token. The score is the gated sum, `output.score`, not the nineteen
`output.rewards`. The authors advise against batches, since their class finds the last token by the padding's id; here
batches change nothing.

The repository's class is remote code, and does not import with transformers 5; its layers are read here without it.

Source: the card of RLHFlow/ArmoRM-Llama3-8B-v0.1 and modeling_custom.py beside it; Wang et al. 2024, arXiv:2406.12845.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from freeprm.errors import DataError
from freeprm.models.heads import GatedHead, Layout
from freeprm.models.scoring_input import Ints, ScoringInput, render, response_name, tokenise
from freeprm.scorers._released import ReleasedRecipe, unchanged
from freeprm.scorers.skywork_reward import conversation
from freeprm.types import Rollout, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedTurn:
    """A conversation, read where its last prompt ends and at its last token."""

    gate: tuple[int, ...]
    """Ids from the end of the prompt to the beginning of the response."""

    def write(self, tokenizer: PreTrainedTokenizerBase, rollout: Rollout, steps: Sequence[Span]) -> ScoringInput:
        """The conversation, read at the gate and at the last token."""
        messages = conversation(rollout)
        text = render(tokenizer, messages, date=None)
        ids = tokenise(tokenizer, text, special=False).ids
        gates = self._gates(ids)
        n_answers = sum(message["role"] == "assistant" for message in messages)
        if len(gates) != n_answers:
            raise DataError(
                f"{response_name(rollout)}: {n_answers} assistant turns, but {len(gates)} times the tokens "
                f"{list(self.gate)} that open one and that the gate is found by; the text holds a template's marks, or "
                "the chat template is not Llama 3's"
            )
        return ScoringInput(name=response_name(rollout), text=text, ids=ids, positions=(gates[-1], len(ids) - 1))

    def _gates(self, ids: Ints) -> list[int]:
        listed, gate = ids.tolist(), list(self.gate)
        return [at for at in range(len(listed) - len(gate) + 1) if listed[at : at + len(gate)] == gate]


PLUGIN = ReleasedRecipe(
    name="armo_rm",
    released=("RLHFlow/ArmoRM-Llama3-8B-v0.1",),
    # token_pattern of modeling_custom.py: "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    form=GatedTurn(gate=(128009, 128006, 78191, 128007, 271)),
    tokens={"<|eot_id|>": 128009, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007},
    head=Layout(
        architectures=("LlamaForRewardModelWithGating",), build=GatedHead,
        auto_class="AutoModelForSequenceClassification", base_type="llama",
    ),
    normalise=unchanged,  # output.score (card)
    kind="unbounded",
    splitter=None,
    aggregation=None,
)  # fmt: skip
