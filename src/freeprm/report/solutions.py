"""The page of solutions: every step coloured by its reward, the true first error marked by a label."""

from collections.abc import Sequence
from html import escape
from itertools import groupby

from freeprm.report.content import SolutionView
from freeprm.report.svg import element
from freeprm.report.wording import signed

LEVELS = 4
"""Shades on each side of zero; the style sheet has a class for each."""


def solutions_page(views: Sequence[SolutionView]) -> str:
    """The colour scale, then a frame for each problem with its solutions beside each other."""
    scale = reward_scale([step.reward for view in views for step in view.steps])
    frames = []
    for problem, group in groupby(views, key=lambda view: (view.problem, view.gold)):
        text, gold = problem
        cards = [_card(view, scale) for view in group]
        answer = [element("p", "gold answer ", element("b", escape(gold)), class_="gold")] if gold is not None else []
        frames.append(
            element(
                "article", element("p", escape(text), class_="problem"), *answer, element("div", *cards, class_="cards")
            )
        )
    return _scale_key(scale) + "".join(frames)


def reward_scale(rewards: Sequence[float]) -> float:
    """The reward that gets the full colour: the 90th percentile of |reward|, so that outliers pale nothing."""
    sizes = sorted(abs(reward) for reward in rewards)
    return (sizes[int(0.9 * (len(sizes) - 1))] if sizes else 0.0) or 1.0


def shade(reward: float, scale: float) -> int:
    """-LEVELS .. LEVELS: the side is the sign; the depth grows with the size and stops at the scale."""
    depth = min(LEVELS, round(abs(reward) / scale * LEVELS))
    return depth if reward >= 0 else -depth


def _card(view: SolutionView, scale: float) -> str:
    verdict = {True: "right answer", False: "wrong answer", None: "not graded"}[view.correct]
    lowest = min(range(len(view.steps)), key=lambda k: view.steps[k].reward, default=None)
    steps = [_step(view, index, lowest, scale) for index in range(len(view.steps))]
    answer = "no answer" if view.answer is None else f"answer {view.answer}"
    state = {True: "right", False: "wrong", None: "unknown"}[view.correct]
    return element(
        "section",
        element("h3", escape(view.label)),
        element("p", element("span", escape(f"{answer}: {verdict}"), class_=f"verdict {state}"), class_="answer"),
        element("ol", *steps, class_="steps"),
        element("p", escape(f"rewards by {view.scorer}"), class_="by"),
        class_="card",
    )


def _step(view: SolutionView, index: int, lowest: int | None, scale: float) -> str:
    step = view.steps[index]
    tags = []
    if index == view.first_error:
        tags.append(element("span", "✗ first error", class_="tag error"))
    elif step.right is False:
        tags.append(element("span", "✗ wrong", class_="tag later"))
    if index == lowest and step.reward < 0:
        tags.append(element("span", "lowest reward", class_="tag low"))
    level = shade(step.reward, scale)
    name = f"pos{level}" if level > 0 else f"neg{-level}" if level < 0 else "even"
    return element(
        "li",
        element("span", escape(step.text.strip()), *[" " + tag for tag in tags], class_="what"),
        element("span", signed(step.reward, 2), class_="reward"),
        class_=name,
    )


def _scale_key(scale: float) -> str:
    names = [*[f"neg{n}" for n in range(LEVELS, 0, -1)], "even", *[f"pos{n}" for n in range(1, LEVELS + 1)]]
    swatches = element("span", *[element("i", "", class_=name) for name in names], class_="swatches")
    ends = (f"{signed(-scale, 2)} or less", f"{signed(scale, 2)} or more")
    return element(
        "p", element("em", "step reward"), element("span", ends[0]), swatches, element("span", ends[1]), class_="key"
    )
