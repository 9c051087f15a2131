"""The answer that is found in a response, by our ways and by a user's own."""

from pathlib import Path

import pytest

from freeprm.core.answers.extraction import EXTRACTORS, extract, extractor, tidy
from freeprm.errors import ConfigError, PluginError


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("so \\boxed{\\frac{1}{\\sqrt{2}}} and done", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{1}, no: \\boxed{2}", "2"),
        ("\\boxed{x = \\boxed{5}}", "5"),
        ("\\fbox{3}", "3"),
        ("$\\boxed 2$.", "2"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{5} goes into \\boxed{}", "5"),  # an empty box says nothing
        ("\\boxed{4} Answer: 5", "4"),  # a box wins wherever it stands
        ("\\boxed{4", None),  # cut off
        ("The answer is 5. Wait. The answer is 6.", "6"),
        ("The final answer is $4$. I hope it is correct.", "4"),
        ("The answer to the question is: \\(x = 3\\).", "x = 3"),
        ("Therefore the answer is 3.5 km. Good", "3.5 km"),
        ("**Answer: 42**", "42"),
        ("### Final Answer:\n\n$$\n42\n$$\n", "42"),
        ("Answer:\n\\text{Evelyn}", "Evelyn"),
        ("work\n#### 1,000", "1,000"),
        ("#### 1. Heading\n#### Case 2", None),
        ("A: 18", "18"),
        ("<think>6?</think><answer>7</answer>", "7"),
        ("<answer>\n7 apples\n</answer>\nbye", "7 apples"),
        ("so it is\n**Final Answer**\n7", "7"),
        ("## Final Answer\n\n$x = 7$\n", "x = 7"),
        ("The answer is 7.\n\nQ: What is 4+4?\nA: 8", "7"),
        ("so \\boxed{7}.\n\n**Question 2:** and 4+4? \\boxed{8}", "7"),
        ("The answer is 7.<|im_end|>\n<|im_start|>user\nThe answer is 8", "7"),
        ("Problem: what is 3+4?\nThe answer is 7", "7"),  # a question before the answer is no next one
        ("Answer: 0.333...", "0.333..."),
        ("A: 18.", "18"),
        ("The answer is", None),
        ("Answer: $$", None),
        ("There is none here", None),
        ("", None),
    ],
)
def test_extract_finds_the_final_answer(response: str, answer: str | None) -> None:
    assert extract(response) == answer


def test_extractors_are_asked_in_the_order_given() -> None:
    response = "\\boxed{4}\nThe answer is 5.\nCheck: 6"
    assert extract(response, ["marker", "boxed"]) == "5"
    assert extract(response, ["last_number"]) == "6"
    assert extract("nothing", list(EXTRACTORS)) is None


def test_an_unknown_extractor_is_refused_with_the_closest_name() -> None:
    with pytest.raises(ConfigError, match=r"'box': expected one of boxed, .* Did you mean 'boxed'\?"):
        extract("\\boxed{4}", ["box"])


@pytest.mark.parametrize(
    "hostile",
    [
        "\\boxed{" * 50_000,
        "\\boxed{" * 9_000 + "5" + "}" * 9_000,
        "\\boxed{1}" * 30_000,
        "{" * 100_000,
        "answer: $$" * 20_000,
        "$" * 100_001,
    ],
)
def test_extract_takes_linear_time(hostile: str) -> None:
    extract(hostile)  # quadratic time would be minutes


@pytest.mark.parametrize(
    ("pattern", "answer"),
    [
        ("ANSWER=(.*)", "5"),  # the last match that holds something
        ("ANSWER=.*", "ANSWER="),
        ("^(?:RESULT|ANSWER)=(.*)$", "5"),
        ("NONE=(.*)", None),
    ],
)
def test_an_expression_of_the_users_own_finds_the_last_match(pattern: str, answer: str | None) -> None:
    assert extract("ANSWER=4\nANSWER=$5$.\nANSWER=", [f"regex:{pattern}"]) == answer


def test_a_function_of_the_users_own_finds_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_extractors.py").write_text(
        "def last(text): return text[-3:] or None\ndef seven(text): return 7\nx = 1"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert extract("so it is $9$", ["boxed", "my_extractors:last"]) == "9"
    assert extract("", ["my_extractors:last"]) is None
    with pytest.raises(TypeError, match=r"my_extractors:seven found an answer of type int; expected str or None"):
        extract("", ["my_extractors:seven"])
    with pytest.raises(PluginError, match="expected a function"):
        extractor("my_extractors:x")
    with pytest.raises(PluginError, match="no_such_module"):
        extractor("no_such_module:f")


def test_an_expression_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"extractor 'regex:\(': missing \)"):
        extractor("regex:(")


def test_tidy_takes_linear_time_and_leaves_what_no_answer_has() -> None:
    assert tidy("\\boxed{$\\text{ 5 }$}.") == "5"
    assert tidy("\\boxed{" * 9_000 + "5" + "}" * 9_000).startswith("\\boxed{")
