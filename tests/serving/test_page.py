"""The page at `/`: stored runs, texts that would be markup, and what a reader does, in a real browser."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from freeprm.scorers.base import Scorer, ScorerSource, load_scorer
from freeprm.serving.service import Limits
from freeprm.stages.grading import grade
from freeprm.stages.scoring import score
from patience import PATIENCE

PROBLEM = (
    "Ned owns 58 pens. Ned has 14 more pens than Ora. Ora also has 11 marbles. Compared with Ben, Ora has 3 more pens. "
    "How many pens does Ben have?"
)
_BEGUN = "Step 1: Ned 58.\nStep 2: Ned 58 = Ora + 14, so 58 - 14 = 44, Ora 44.\n"
SOLUTIONS = (
    f"{_BEGUN}Step 3: Ben = Ora 44 + 3, so 44 + 3 = 47, Ben 47.\nThe answer is 47.",
    f"{_BEGUN}Step 3: Ora 44 = Ben + 3, so 44 - 3 = 41, Ben 41.\nThe answer is 41.",
)
NASTY = "<img src=x onerror=hacked=1><script>"


@pytest.fixture(scope="module")
def runs(prm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scored run of two problems, and folders of other kinds."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [
        {"problem_id": problem, "sample_idx": index, "prompt": f"{problem} {NASTY}", "answer": "7", "response": text}
        for problem in ("p0", "p1")
        for index, text in enumerate([r"we add.\n so \boxed{7}", rf"{NASTY} \boxed{{8}}"])
    ]
    graded = grade(rows, out=folder / "graded")
    score(graded, prm=ScorerSource(source=str(prm)), tokens=True, out=folder / "deep" / "scores")
    (folder / "broken").mkdir()
    (folder / "broken" / "manifest.json").write_text("{")
    return folder


def test_finished_scores_are_listed_with_their_problems_and_shown(client_of, scorer: Scorer, runs: Path):
    client = client_of(scorer, runs=runs)
    assert client.get("/runs").json() == [{"name": "deep/scores", "scorers": ["with-reference"]}]
    which = {"run": "deep/scores", "scorer": "with-reference"}
    problems = client.get("/runs/problems", params=which).json()
    assert [one["id"] for one in problems] == ["p0", "p1"]
    shown = client.get("/runs/view", params={**which, "problem": "p1", "threshold": 1e9}).text
    assert "right answer" in shown
    assert "wrong answer" in shown
    assert shown.count("✗ breaks: first below") == 2
    assert "P(correct) after each step" in shown or "P(correct)" in shown


@pytest.mark.parametrize(
    "which",
    [
        {"run": "deep/none", "scorer": "with-reference"},
        {"run": "../runs", "scorer": "with-reference"},
        {"run": "deep/scores", "scorer": "../../graded/rollouts"},
        {"run": "graded", "scorer": "rollouts"},
        {"run": "broken", "scorer": "x"},
    ],
)
def test_only_listed_scores_are_read(client_of, scorer: Scorer, runs: Path, which: dict[str, str]):
    for client in (client_of(scorer, runs=runs), client_of(scorer)):
        answer = client.get("/runs/problems", params=which)
        assert (answer.status_code, "no scores" in answer.text) == (400, True)
    assert client_of(scorer).get("/runs").json() == []


def test_a_view_escapes_every_text_and_lets_nothing_run(client_of, scorer: Scorer):
    body = {"prompt": NASTY, "responses": [NASTY, rf"so \boxed{{{NASTY}}}"], "threshold": 0}
    answer = client_of(scorer).post("/view", json=body)
    assert answer.status_code == 200
    assert "<img" not in answer.text
    assert "<script" not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    page = client_of(scorer).get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "//" not in page.text.replace("<!DOCTYPE html>", "")  # no other host


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("no chromium")
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=quiet)
        yield browser
        browser.close()


@pytest.mark.slow
def test_a_reader_scores_and_looks_by_keyboard_alone(url_of, scorer: Scorer, runs: Path):
    from playwright.sync_api import expect

    limits = Limits(responses=8, body_bytes=100_000, seconds=PATIENCE)
    url = url_of(scorer, key="k", limits=limits, runs=runs, too_long="exclude")
    with chromium() as browser:
        for scheme in ("light", "dark"):
            page = browser.new_context(color_scheme=scheme).new_page()
            failures: list[str] = []
            page.on("pageerror", lambda error: failures.append(str(error)))  # noqa: B023
            page.on("dialog", lambda dialog: dialog.accept("k"))
            page.goto(url)
            page.wait_for_selector("#shown article")  # the run's first problem, after the key was asked for
            assert page.locator("#stored").is_visible()
            page.focus("#problem")
            page.keyboard.type("the sum of 3 and 4?")
            page.keyboard.press("Tab")
            page.keyboard.type("we add.\nso \\boxed{7}")
            page.keyboard.press("Tab")
            page.keyboard.type(NASTY)
            page.keyboard.press("Control+Enter")
            expect(page.locator("#shown .problem")).to_contain_text("3 and 4", timeout=PATIENCE * 1000)
            expect(page.locator("#shown .card")).to_have_count(2)
            cards = page.locator("#shown .card")
            scores = [float(text.split()[1].replace("−", "-")) for text in cards.locator(".number").all_inner_texts()
                      if text.startswith("score")]  # fmt: skip
            assert scores == sorted(scores, reverse=True)
            assert "best of 2" in cards.first.inner_text()
            assert NASTY in page.locator("#shown").text_content()
            assert page.locator("#shown img, #shown script").count() == 0
            assert page.evaluate("window.hacked") is None
            page.locator("#shown summary").first.focus()
            page.keyboard.press("Enter")
            assert page.locator("#shown .tokens").first.is_visible()
            assert page.locator("#shown .tokens span").first.get_attribute("title")
            page.fill("#problem", "a " * 3000)
            page.keyboard.press("Control+Enter")
            expect(page.locator("#failure")).to_contain_text("longer, with its prompt", timeout=PATIENCE * 1000)
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(255, 255, 255)") == (scheme == "light")
            assert failures == []


@pytest.mark.slow
def test_a_picture_of_scored_solutions_is_small_enough_for_the_documentation(url_of, tmp_path: Path):
    """docs/images/solutions.png is made by this test, see docs/serving.md; FREEPRM_PICTURE_OF is a reward model."""
    file = Path(os.environ.get("FREEPRM_PICTURE", tmp_path / "solutions.png"))
    trained = os.environ.get("FREEPRM_PICTURE_OF")
    model = load_scorer(trained) if trained else load_scorer("solver:base", scorer="untrained")
    limits = Limits(responses=8, body_bytes=100_000, seconds=PATIENCE)
    with chromium() as browser:
        page = browser.new_context(color_scheme="light", viewport={"width": 1000, "height": 800}).new_page()
        page.goto(url_of(model, limits=limits))
        page.fill("#problem", PROBLEM)
        for place, solution in enumerate(SOLUTIONS):
            page.locator("#solutions textarea").nth(place).fill(solution)
        page.fill("#threshold", "-0.03")
        page.locator("#ask button[type=submit]").click()
        page.wait_for_selector("#shown .card", timeout=PATIENCE * 1000)
        page.locator("#shown").screenshot(path=file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert 5_000 < file.stat().st_size < 150_000
