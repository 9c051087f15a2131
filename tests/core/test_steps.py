"""Splitters tile the text whatever it is; tokens follow the steps; bad spans are refused and named.

The beginnings of responses, each different one once.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from freeprm.core.steps import (
    SETTLING,
    SPLITTERS,
    TOKENS,
    Prefix,
    answer_start,
    check_settling,
    check_tiling,
    given_steps,
    prefixes,
    settled_steps,
    splitter,
    steps_in,
    token_spans,
)
from freeprm.errors import ConfigError, SpanError
from freeprm.models.encoding import encode
from freeprm.types import Rollout, Span

PIECES = (
    "\n", "\n\n", " \n \n", "\r\n", " ", "\t", "Step 1: ", "\nStep 2: ", "## Step 3: ", "**Step 4:** ", "x", "Then ",
    "3.5", ". ", "! ", "? ", "e.g. ", "Dr. ", "1. ", "$x^2$", "\\[ y \\]", "\\boxed{7}", "é", "🙂", "。", "½", "\u00a0",
)  # fmt: skip
TEXTS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.text(max_size=60))


def pieces(name: str, text: str) -> list[str]:
    return [text[start:stop] for start, stop in splitter(name)(text)]


@pytest.mark.parametrize("name", SPLITTERS)
@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_a_splitter_tiles_any_text_with_steps_that_hold_something(name: str, text: str) -> None:
    spans = splitter(name)(text)
    check_tiling(spans, len(text))
    assert "".join(text[start:stop] for start, stop in spans) == text
    assert all(stop > start for start, stop in spans)
    assert all(text[start:stop].strip() for start, stop in spans) or len(spans) <= 1


@pytest.mark.parametrize("name", SPLITTERS)
@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_a_step_begins_with_something_visible_so_whitespace_belongs_to_the_step_before(name: str, text: str) -> None:
    assert not any(text[start].isspace() for start, _ in splitter(name)(text)[1:])


def test_step_markers_cut_before_markers_that_open_a_line() -> None:
    text = (
        "Let us see.\nStep 1: a\n\n## Step 2: b, as in Step 1: a\n"
        "**Step 3:** c\nstep 4. d\n### Step 5\ne\nStep by step."
    )
    assert pieces("step_markers", text) == [
        "Let us see.\nStep 1: a\n\n",
        "## Step 2: b, as in Step 1: a\n",
        "**Step 3:** c\n",
        "step 4. d\n",
        "### Step 5\ne\nStep by step.",
    ]


def test_step_markers_without_a_marker_give_one_step() -> None:
    assert pieces("step_markers", "We see\nthat Step 1: is not at the start of a line") == [
        "We see\nthat Step 1: is not at the start of a line"
    ]


def test_lines_keep_blank_lines_with_the_line_before() -> None:
    assert pieces("lines", "a\n\n \nb\n  c\n") == ["a\n\n \n", "b\n  ", "c\n"]


def test_blank_lines_cut_at_blank_lines_alone() -> None:
    assert pieces("blank_lines", "a\nb\n \n\nc\r\n\r\nd") == ["a\nb\n \n\n", "c\r\n\r\n", "d"]


def test_sentences_end_before_capitals_digits_markdown_and_latex() -> None:
    text = 'It is 5. Is it? Yes! "So." 3 more. \\(x\\) is. $y$ too. **Bold.** - item... Last'
    assert pieces("sentences", text) == [
        "It is 5. ", "Is it? ", "Yes! ", '"So." ', "3 more. ", "\\(x\\) is. ", "$y$ too. ", "**Bold.** ", "- item... ",
        "Last",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "It is 3.5 or .5 of it",
        "Some, e.g. Ada or i.e. 5, and Dr. No with Fig. 2",
        "1. First we add",
        "  2. Then\n**3. And\n- 4. Or\n(b. 5",
        "Step 2. Add them",
        "about 5 kg. of it",
    ],
)
def test_sentences_do_not_end_in_decimals_abbreviations_and_enumerators(text: str) -> None:
    assert pieces("sentences", text) == [text]


def test_sentences_end_after_a_number_inside_a_line() -> None:
    assert pieces("sentences", "There are 12. Then 1. One") == ["There are 12. ", "Then 1. ", "One"]


def test_sentences_of_chinese_need_no_whitespace() -> None:
    assert pieces("sentences", "一加一。等于二！") == ["一加一。", "等于二！"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n\nb\nStep 1: c\nd", ["a\n\nb\nStep 1: c\nd"]),  # one marker is enough
        ("a\nb\n\nc", ["a\nb\n\n", "c"]),
        ("a\nb", ["a\n", "b"]),
        ("a", ["a"]),
    ],
)
def test_auto_takes_markers_then_blank_lines_then_lines(text: str, expected: list[str]) -> None:
    assert pieces("auto", text) == expected


@pytest.mark.parametrize("hostile", ["." * 100_000, " \n" * 50_000, "A. " * 30_000, ".)" * 50_000, "#" * 100_000])
def test_splitters_take_linear_time(hostile: str) -> None:
    for split in SPLITTERS.values():
        split(hostile)  # quadratic time would be minutes


def test_an_unknown_splitter_is_refused_with_the_closest_name() -> None:
    with pytest.raises(ConfigError, match=r"'line': expected one of .* Did you mean 'lines'\?"):
        splitter("line")
    with pytest.raises(ConfigError, match="where scores are asked for by token"):
        splitter(TOKENS)


def test_given_steps_take_the_whitespace_behind_them() -> None:
    assert given_steps(" a b\n\nc \n", ["a b", "c"]) == [Span(0, 6), Span(6, 9)]


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(TEXTS.filter(str.strip), min_size=1, max_size=6))
def test_given_steps_find_any_steps_joined_by_blank_lines(steps: list[str]) -> None:
    text = "\n\n".join(steps)
    spans = given_steps(text, steps)
    check_tiling(spans, len(text))
    assert [text[start:stop].strip() for start, stop in spans] == [step.strip() for step in steps]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["a", "c"], r"step 1, 'c', is not at character 3, where the response goes on with 'b c'"),
        (["a"], r"the steps end at character 3, but the response goes on with 'b c'"),
        (["a", "b", "c", "d"], r"step 3, 'd', is not at character 6, where the response goes on with ''"),
        (["a", " ", "b"], r"step 1 is empty"),
        ([], r"the steps end at character 0"),
    ],
)
def test_given_steps_that_are_not_the_text_are_refused_with_the_place(steps: list[str], message: str) -> None:
    with pytest.raises(SpanError, match=message):
        given_steps("a\n\nb c", steps)


def test_given_steps_find_the_steps_of_processbench(real_data: Path) -> None:
    for row in json.loads((real_data / "processbench" / "math.json").read_text(encoding="utf-8")):
        text = "\n\n".join(row["steps"])
        spans = given_steps(text, row["steps"])
        assert len(spans) == len(row["steps"])
        check_tiling(spans, len(text))


def test_a_merged_token_belongs_to_the_step_that_it_ends_and_a_leading_space_to_the_step_that_it_opens() -> None:
    text = "It is.\n\nOr not. The end"
    steps = [Span(0, 8), Span(8, 16), Span(16, 23)]
    #         It         is         .\n\n      Or          not           .             The            end
    tokens = [Span(0, 2), Span(2, 5), Span(5, 8), Span(8, 10), Span(10, 14), Span(14, 15), Span(15, 19), Span(19, 23)]
    assert token_spans(tokens, steps, text=text) == [Span(0, 3), Span(3, 6), Span(6, 8)]


def test_a_token_across_a_boundary_belongs_to_the_step_where_it_begins() -> None:
    # The caller cut between the full stop and its newlines, which are one token.
    assert token_spans([Span(0, 1), Span(1, 4), Span(4, 5)], [Span(0, 2), Span(2, 5)], text="a.\n\nb") == [
        Span(0, 2),
        Span(2, 3),
    ]


def test_an_end_of_turn_token_belongs_to_the_last_step() -> None:
    assert token_spans([Span(0, 2), Span(2, 3), Span(3, 3)], [Span(0, 2), Span(2, 3)], text="a\nb") == [
        Span(0, 1),
        Span(1, 3),
    ]


def test_a_step_inside_a_token_of_an_earlier_step_has_no_token() -> None:
    assert token_spans([Span(0, 3), Span(3, 4)], [Span(0, 1), Span(1, 2), Span(2, 4)], text="abcd") == [
        Span(0, 1),
        Span(1, 1),
        Span(1, 2),
    ]


def test_tokens_without_steps_are_refused() -> None:
    with pytest.raises(SpanError, match="1 tokens but no steps"):
        token_spans([Span(0, 0)], [], text="")
    assert token_spans([], [], text="") == []


def encoded(tokenizer: Any, text: str) -> list[Span]:
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [Span(*offset) for offset in offsets]


def check_token_laws(tokens: Sequence[Span], text: str) -> None:
    for split in SPLITTERS.values():
        steps = split(text)
        ranges = token_spans(tokens, steps, text=text)
        check_tiling(ranges, len(tokens))
        assert len(ranges) == len(steps)
        for step, (first, last) in zip(steps, ranges, strict=True):
            for token in tokens[first:last]:
                visible = [at for at in range(token.start, token.stop) if not text[at].isspace()]
                assert all(step.start <= at < step.stop for at in visible[:1])


@settings(deadline=None, max_examples=60)
@given(text=TEXTS.filter(bool))
def test_tokens_of_a_real_chat_tokenizer_tile_the_steps_of_any_text(qwen_tokenizer: Any, text: str) -> None:
    check_token_laws(encoded(qwen_tokenizer, text), text)


@settings(deadline=None, max_examples=60)
@given(text=TEXTS.filter(bool))
def test_tokens_of_a_byte_fallback_tokenizer_tile_the_steps_of_any_text(stories_tokenizer: Any, text: str) -> None:
    check_token_laws(encoded(stories_tokenizer, text), text)


def test_every_step_of_real_responses_has_tokens_of_its_own(qwen_tokenizer: Any, real_data: Path) -> None:
    for line in (real_data / "qwen3_dapo_pointwise" / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()[:60]:
        text = json.loads(line)["response"]
        tokens = encoded(qwen_tokenizer, text)
        for split in SPLITTERS.values():
            ranges = token_spans(tokens, split(text), text=text)
            check_tiling(ranges, len(tokens))
            assert all(stop > start for start, stop in ranges)


@pytest.fixture(scope="session")
def stories_tokenizer(stories: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(stories)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([Span(0, 4), Span(3, 9)], "step 1 starts at 3 but step 0 ends at 4; spans must not overlap"),
        ([Span(0, 4), Span(5, 9)], "step 1 starts at 5 but step 0 ends at 4; spans must leave no gap"),
        ([Span(1, 9)], "step 0 starts at 1 but the response starts at 0"),
        ([Span(0, 4), Span(4, 2)], "step 1 starts at 4 but stops at 2"),
        ([Span(0, 4)], "the last step ends at 4 but the response at 9"),
        ([], "the last step ends at 0 but the response at 9"),
    ],
)
def test_spans_that_do_not_tile_are_refused_with_the_first_bad_one(spans: list[Span], message: str) -> None:
    with pytest.raises(SpanError, match=message):
        check_tiling(spans, 9)


TOKENIZER = tiny.tokenizer()
# Whatever the splitters look at, so that random texts hold beginnings and whole markers alike.
ENDINGS = st.sampled_from([
    "\n", " ", "\t", "\r", "\n\n", "Step", "step ",
    "Step 1", "Step 2:", "## Step 3", "**Step 4:**", "**", "*", "-", "- ",
    ":", ".", "!", "?", "...", "e.g.", "Dr.", "(b)", "1.", "1", "23", "A", "a", "apples", "$", "\\)", "\"", "。", "」",
    "é", "\u00a0", "\u2028", "x", "#", "•", ")",
])  # fmt: skip
BEGINNINGS = st.lists(ENDINGS, max_size=14).map("".join)


@pytest.mark.parametrize("name", SETTLING)
@settings(max_examples=600, deadline=None)
@given(text=BEGINNINGS, rest=BEGINNINGS)
def test_settled_steps_are_the_first_steps_whatever_follows(name, text, rest):
    settled = settled_steps(text, name)
    assert SPLITTERS[name](text + rest)[: len(settled)] == settled


@pytest.mark.parametrize("name", SETTLING)
@settings(max_examples=300, deadline=None)
@given(text=BEGINNINGS, rest=BEGINNINGS)
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


def test_prefixes_end_with_each_step_but_the_last():
    found = prefixes(["p"], ["ab cd ef"], [[Span(0, 3), Span(3, 6), Span(6, 8)]])
    assert found.distinct == [Prefix("p", "ab "), Prefix("p", "ab cd ")]
    assert found.indices == [(0, 1)]
    assert found.n_repeated == 0


def test_prefixes_that_responses_to_one_problem_share_are_there_once():
    steps = [[Span(0, 1), Span(1, 2), Span(2, 3)], [Span(0, 1), Span(1, 2), Span(2, 3)], [Span(0, 1), Span(1, 3)]]
    found = prefixes(["p", "p", "q"], ["abc", "adc", "abc"], steps)
    # p: a, ab; then a again, ad; and of q, another problem, a of its own.
    assert found.distinct == [Prefix("p", "a"), Prefix("p", "ab"), Prefix("p", "ad"), Prefix("q", "a")]
    assert found.indices == [(0, 1), (0, 2), (3,)]
    assert found.n_repeated == 1


def test_a_response_of_one_step_has_no_prefix():
    assert prefixes(["p"], ["abc"], [[Span(0, 3)]]).indices == [()]


# Reasoning before the answer.

THOUGHT = "<think>\nFirst this.\n\nStep 2: then that.\n</think>\n\nStep 1: so 3.\nStep 2: it is 4."
ANSWER = THOUGHT.index("Step 1")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (THOUGHT, ANSWER),
        ("a thought\n</think>\nyes", 19),  # the template opened it
        ("[THINK]a[/THINK]b", 16),
        ("<|START_THINKING|>a<|END_THINKING|> b", 36),
        ("<reasoning>a</reasoning>\n b", 26),
        ("no thought < 3 and [x] at all", 0),
        ("<think>cut off while", None),
        ("  <think>", None),
        ("", 0),
    ],
)
def test_an_answer_begins_behind_the_closing_tag(text: str, start: int | None):
    assert answer_start(text) == start


@pytest.mark.parametrize("name", SPLITTERS)
def test_reasoning_is_part_of_the_text_or_cut_apart_or_left_out(name: str):
    assert steps_in(THOUGHT, name) == SPLITTERS[name](THOUGHT)
    apart = steps_in(THOUGHT, name, "apart")
    check_tiling(apart, len(THOUGHT))
    assert ANSWER in [span.start for span in apart]
    excluded = steps_in(THOUGHT, name, "exclude")
    check_tiling(excluded, len(THOUGHT), start=ANSWER)
    assert excluded == [span for span in apart if span.start >= ANSWER]
    assert [THOUGHT[span.start : span.stop] for span in excluded] == [
        THOUGHT[ANSWER:][span.start : span.stop] for span in SPLITTERS[name](THOUGHT[ANSWER:])
    ]


def test_markers_of_the_answer_do_not_decide_about_the_reasoning():
    text = "<think>\none\n\ntwo\n</think>\n\nStep 1: a\nStep 2: b"
    found = [text[span.start : span.stop] for span in steps_in(text, "auto", "apart")]
    assert found == ["<think>\none\n\n", "two\n</think>\n\n", "Step 1: a\n", "Step 2: b"]


def test_reasoning_that_never_ends_has_no_answer():
    assert steps_in("<think>a\nb", "lines", "exclude") == []
    assert steps_in("<think>a\nb", "lines", "apart") == SPLITTERS["lines"]("<think>a\nb")
    assert steps_in("a\nb", "lines", "exclude") == SPLITTERS["lines"]("a\nb")
