"""The paper's figures on cost: what follows from its stated inputs, what does not, and the tables of both.

Source: Yuan et al. 2024, arXiv:2412.01981: section 4.2, Figures 1 and 3, Table 3.
"""

from collections.abc import Iterable, Sequence
from statistics import linear_regression
from typing import NamedTuple

from freeprm.report.table import Cells, Table, texts

RESPONSES = (2, 4, 8)
"""Responses an instruction at the three scales of Figure 3."""
SHEPHERD_OVER_CE = (38.8, 38.6, 38.8)
"""Development FLOPs of Math-Shepherd, as a multiple of the implicit PRM's with CE."""
SHEPHERD_OVER_DPO = (146.5, 49.9, 21.3)
AUTOPSV_OVER_CE = (4.3, 4.2, 4.3)
SHEPHERD_FLOPS = 2.69e20
"""Of Math-Shepherd at 8 responses, read off the bar of Figure 3."""
PARAMETERS = 8.03e9
"""Of Llama-3.1-8B, embeddings included."""
INSTRUCTIONS = 32_942
"""Of the released training set."""
ROLLOUTS_A_RESPONSE = 80
"""Ten steps, eight completions each: the paper's own account of Math-Shepherd."""
TRAIN, FORWARD = 6, 2
"""FLOPs a parameter and token."""


def dpo_over_ce(responses: int, *, variance: float) -> float:
    """`2 E[p (1 - p)] (r - 1)`: training sequences of DPO on all pairs over those of CE, r responses an instruction.

    Of r responses, each right with probability p, there are `r (r - 1) p (1 - p)` pairs of a right and a wrong one on
    average, two sequences each; CE takes r sequences.

    Args:
        responses: r, to an instruction.
        variance: E[p (1 - p)] over instructions.
    """
    return 2 * variance * (responses - 1)


def published_dpo_over_ce() -> tuple[float, ...]:
    """DPO's cost over CE's at each scale, from the paper's two rows of ratios."""
    return tuple(ce / dpo for ce, dpo in zip(SHEPHERD_OVER_CE, SHEPHERD_OVER_DPO, strict=True))


def fitted_variance(ratios: Sequence[float], responses: Sequence[int] = RESPONSES) -> float:
    """The E[p (1 - p)] for which `dpo_over_ce` is nearest to the ratios, by least squares."""
    steps = [2 * (r - 1) for r in responses]
    return sum(x * y for x, y in zip(steps, ratios, strict=True)) / sum(x * x for x in steps)


def fitted_intercept(ratios: Sequence[float], responses: Sequence[int] = RESPONSES) -> float:
    """Where a line through the ratios meets r = 1, at which there is no pair: what DPO was charged besides pairs."""
    return linear_regression([r - 1 for r in responses], ratios).intercept


def reproduced_shepherd_over_dpo() -> tuple[float, ...]:
    """Math-Shepherd over DPO at each scale, from its ratio to CE and one fitted number."""
    variance = fitted_variance(published_dpo_over_ce())
    return tuple(
        ce / dpo_over_ce(responses, variance=variance)
        for ce, responses in zip(SHEPHERD_OVER_CE, RESPONSES, strict=True)
    )


def implied_pairs(ratio: float, responses: int) -> float:
    """Pairs in the training set at a ratio of DPO to CE; two sequences each, against r an instruction."""
    return ratio * responses * INSTRUCTIONS / 2


def derivable_ratio(*, per_token: float, length: float = 1.0) -> float:
    """Math-Shepherd over CE if each of the 80 rollouts were charged `2 P` a token: (80 * 2 * length + c) / c.

    Args:
        per_token: c, FLOPs a parameter and token that both methods pay for a response: 6 to train, 8 with the
            reference's forward pass or the drawing, 10 with both.
        length: of a rollout, in lengths of a response; one that starts at a step has only the rest to write.
    """
    return (ROLLOUTS_A_RESPONSE * FORWARD * length + per_token) / per_token


class ImpliedTokens(NamedTuple):
    """What a ratio of 38.8 takes."""

    response: float
    """Tokens of a response with its prompt, from the bar of Figure 3."""
    generated: float
    """Tokens that Math-Shepherd generated a response."""
    rollout: float
    """The same a rollout, of 80."""


def implied_tokens(*, per_token: float, ratio: float = 38.8) -> ImpliedTokens:
    """The tokens behind a ratio of Math-Shepherd to CE; `per_token` as in `derivable_ratio`.

    CE costs `c P L` a response of L tokens. What Math-Shepherd costs above that, `(ratio - 1) c P L`, is generation at
    `2 P` a token, and `c L` is known from the bar, so that c falls out of the number of generated tokens.
    """
    paid = SHEPHERD_FLOPS / ratio / (PARAMETERS * RESPONSES[-1] * INSTRUCTIONS)  # c L
    generated = (ratio - 1) * paid / FORWARD
    return ImpliedTokens(paid / per_token, generated, generated / ROLLOUTS_A_RESPONSE)


class Table3Column(NamedTuple):
    """A column of Table 3: GPU time in % of generation."""

    generator: str
    baseline: float
    """Reward model with one model, as printed."""
    implicit: float
    """Reward model with two."""
    baseline_total: float
    implicit_total: float

    @property
    def baseline_from_total(self) -> float:
        """What the printed total leaves for the reward model: half of `implicit`, while `baseline` is this as a share
        of `implicit_total`."""
        return self.baseline_total - 100


TABLE_3 = (
    Table3Column("Mistral-7B-Instruct-v0.2", 33.5, 201.6, 200.9, 301.6),
    Table3Column("Llama-3.1-8B-Instruct", 29.4, 141.7, 171.1, 241.7),
    Table3Column("Llama-3.1-70B-Instruct", 9.1, 22.2, 111.1, 122.2),
)


def published_tables() -> list[Table]:
    """Ratios of Figure 3 reproduced, what 38.8 takes, what the stated inputs give instead, and Table 3."""
    return [_ratios(), _implied(), _stated(), _best_of_n()]


def _ratios() -> Table:
    ratios = published_dpo_over_ce()
    variance = fitted_variance(ratios)
    fitted = [dpo_over_ce(r, variance=variance) for r in RESPONSES]
    pairs = [implied_pairs(ratio, r) for ratio, r in zip(ratios, RESPONSES, strict=True)]
    return Table(
        title="Figure 3: ratios of development FLOPs",
        header=("responses an instruction", *map(str, RESPONSES)),
        rows=(
            _row("Math-Shepherd / CE, published", SHEPHERD_OVER_CE),
            _row("AutoPSV / CE, published", AUTOPSV_OVER_CE),
            _row("Math-Shepherd / DPO, published", SHEPHERD_OVER_DPO),
            _row("Math-Shepherd / DPO, reproduced", reproduced_shepherd_over_dpo()),
            _row("DPO / CE, from the published", ratios, ".3f"),
            _row("DPO / CE = 2 E[p(1-p)] (r - 1)", fitted, ".3f"),
            _row("pairs that the published take", pairs, ",.0f"),
        ),
        note=(
            "Reproduced: training charged by the sequence, DPO on every pair of a right and a wrong response, one "
            f"number fitted: E[p(1-p)] = {variance:.3f}. A line through the published DPO / CE meets r = 1 at "
            f"{fitted_intercept(ratios):.4f}: the rollouts, which both methods share, were not charged."
        ),
    )


def _implied() -> Table:
    rows = []
    for per_token, what in ((6, "training"), (8, "and the reference, or drawing"), (10, "and both")):
        tokens = implied_tokens(per_token=per_token)
        rows.append(_row(f"{per_token} P: {what}", tokens, ",.0f"))
    return Table(
        title="What Math-Shepherd / CE = 38.8 takes",
        header=(
            "charged to CE a token", "tokens a response", "tokens generated to label one response",
            "the same a rollout, of 80",
        ),
        rows=tuple(rows),
        note=(
            f"From the bar of Figure 3 ({SHEPHERD_FLOPS:.3g} FLOPs at 8 responses), {PARAMETERS:.3g} "
            f"parameters and {INSTRUCTIONS:,} instructions: about 62,000 generated tokens a response, whatever "
            "CE is charged. The paper does not state token counts, so the ratio cannot be derived from it."
        ),
    )  # fmt: skip


def _stated() -> Table:
    rows = [
        _row(f"{length:g}", [derivable_ratio(per_token=per_token, length=length) for per_token in (6, 8, 10)])
        for length in (1.0, 0.45)
    ]
    return Table(
        title="Math-Shepherd / CE from what the paper does state: 10 steps, 8 completions each",
        header=("tokens of a rollout, in responses", "CE at 6 P", "at 8 P", "at 10 P"),
        rows=tuple(rows),
        note=(
            "1: every rollout as long as a response; 0.45: only what is left to write after a step, on average over "
            "ten equal steps. The published 38.8 lies above all of these."
        ),
    )


def _best_of_n() -> Table:
    columns = TABLE_3
    shares = [100 * column.baseline_total / column.implicit_total for column in columns]
    return Table(
        title="Table 3: GPU time of best-of-N, in % of generation, as published",
        header=("", *(column.generator for column in columns)),
        rows=(
            _row("reward model, one model, as printed", [column.baseline for column in columns]),
            _row("the same, from the printed total", [column.baseline_from_total for column in columns]),
            _row("reward model, policy and reference", [column.implicit for column in columns]),
            _row("total, one model", [column.baseline_total for column in columns]),
            _row("total, policy and reference", [column.implicit_total for column in columns]),
            _row("one model's total, in % of two models'", shares),
        ),
        note=(
            "The printed row of the one-model scorer does not go with its totals: it is that scorer's share of the two "
            "models' total. From the totals it costs half of what policy and reference cost."
        ),
    )


def _row(name: str, values: Iterable[float], spec: str = ".1f") -> Cells:
    return texts(name, *(format(value, spec) for value in values))
