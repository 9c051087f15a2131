from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from freeprm.core.settled import SETTLING, check_settling, settled_steps
from freeprm.core.steps import SPLITTERS, token_spans
from freeprm.errors import ConfigError
from freeprm.models.encoding import encode
from freeprm.types import Rollout, Span

TOKENIZER = tiny.tokenizer()
# Whatever the splitters look at, so that random texts hold beginnings and whole markers alike.
PIECES = st.sampled_from([
    "\n", " ", "\t", "\r", "\n\n", "Step", "step ",
    "Step 1", "Step 2:", "## Step 3", "**Step 4:**", "**", "*", "-", "- ",
    ":", ".", "!", "?", "...", "e.g.", "Dr.", "(b)", "1.", "1", "23", "A", "a", "apples", "$", "\\)", "\"", "。", "」",
    "é", "\u00a0", "\u2028", "x", "#", "•", ")",
])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=14).map("".join)


@pytest.mark.parametrize("name", SETTLING)
@settings(max_examples=600, deadline=None)
@given(text=TEXTS, rest=TEXTS)
def test_settled_steps_are_the_first_steps_whatever_follows(name, text, rest):
    settled = settled_steps(text, name)
    assert SPLITTERS[name](text + rest)[: len(settled)] == settled


@pytest.mark.parametrize("name", SETTLING)
@settings(max_examples=300, deadline=None)
@given(text=TEXTS, rest=TEXTS)
def test_their_tokens_are_the_first_tokens_whatever_follows(name, text, rest):
    settled = settled_steps(text, name)
    if settled:
        assert tokens_of(text, settled) == tokens_of(text + rest, settled)


def tokens_of(text: str, settled: Sequence[Span]) -> tuple[list[int], list[Span]]:
    """Ids and token ranges of the first steps of a text."""
    rollout = Rollout(problem_id="p", sample_idx=0, prompt="how many?", response=text, truncated=True)
    (item,) = encode(TOKENIZER, [rollout])
    ranges = token_spans(item.spans, [*settled, Span(settled[-1].stop, len(text))], text=text)[: len(settled)]
    return item.ids[: item.n_prompt + ranges[-1].stop].tolist(), ranges


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("step_markers", "Step 1: a.\nStep 2", 0),  # may become Step 21 apples
        ("step_markers", "Step 1: a.\nStep 2:", 1),
        ("step_markers", "Step 1: a.\nStep 2\n", 1),  # alone on its line
        ("step_markers", "Step 1: a.\nStep 2*", 0),
        ("step_markers", "Step 1: a.\nStep 2**", 1),
        ("lines", "one\n", 0),  # the next line may be blank, and then is part of this step
        ("lines", "one\nt", 1),
        ("blank_lines", "one\n\ntwo\n\n", 1),
        ("sentences", "It is 3. ", 0),  # a small letter would go on with the sentence
        ("sentences", "It is 3. S", 1),
        ("sentences", "好。她", 0),  # without a space the next word's tokens may reach back
        ("sentences", "好。她 x", 1),
    ],
)
def test_a_step_is_settled_with_what_shows_the_next_one(name, text, expected):
    assert len(settled_steps(text, name)) == expected


@pytest.mark.parametrize("name", ["auto", "tokens"])
def test_a_splitter_that_may_cut_otherwise_later_is_refused_with_those_that_do_not(name):
    with pytest.raises(ConfigError, match=f"'{name}': .*choose one of step_markers, lines, blank_lines, sentences"):
        check_settling(name)


def test_a_name_that_is_no_splitter_is_refused_as_such():
    with pytest.raises(ConfigError, match="Did you mean 'lines'"):
        check_settling("liness")
