"""Train a small process reward model from Python and look at the step rewards of one right and one wrong solution."""

import tempfile
from dataclasses import replace
from pathlib import Path

import freeprm

PROMPT = (
    "Ivy has 48 books. Ivy has 3 times as many books as Kim. Compared with Kim, Ron has 12 fewer books. "
    "How many books does Ron have?"
)
RIGHT = (
    "Step 1: Ivy 48.\n"
    "Step 2: Ivy 48 = Kim * 3, so 48 / 3 = 16, Kim 16.\n"
    "Step 3: Ron = Kim 16 - 12, so 16 - 12 = 4, Ron 4.\n"
    "The answer is 4."
)
WRONG = (
    "Step 1: Ivy 48.\n"
    "Step 2: Kim = Ivy 48 * 3, so 48 * 3 = 144, Kim 144.\n"
    "Step 3: Ron = Kim 144 - 12, so 144 - 12 = 132, Ron 132.\n"
    "The answer is 132."
)

with tempfile.TemporaryDirectory() as folder:
    runs = Path(folder)
    sampled = freeprm.sample(
        "arithmetic",
        model="solver:base",
        out=runs / "rollouts",
        split="train",
        n_problems=150,
        n=8,
        temperature=0.8,
        max_new_tokens=200,
        seed=0,
    )
    graded = freeprm.grade([sampled.folder], out=runs / "graded")
    settings = freeprm.load_settings(options={"model": "solver:base", "objective": "ce"}, preset="embedded")
    trained = freeprm.train.run([graded.folder], replace(settings, out=runs / "prm"))

    prm = freeprm.ImplicitPRM.from_pretrained(trained.folder)
    for name, response in (("right", RIGHT), ("wrong", WRONG)):
        (score,) = prm.score(PROMPT, [response])
        print(f"\n{name}: r(y) = {score.reward:+.2f}")
        for span, reward, chance in zip(score.steps, score.step_rewards, score.p_correct, strict=True):
            print(f"  {reward:+.2f}  P(correct) {chance:.2f}  {response[span.start : span.stop].strip()!r}")
