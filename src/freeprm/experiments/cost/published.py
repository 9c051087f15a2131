"""The paper's figures on cost beside what follows from its stated inputs."""

from collections.abc import Sequence

from freeprm.core import published_costs as paper
from freeprm.experiments.cost.tables import TextTable


def published_tables() -> list[TextTable]:
    """Ratios of Figure 3 reproduced, what 38.8 takes, what the stated inputs give instead, and Table 3."""
    return [_ratios(), _implied(), _stated(), _best_of_n()]


def _ratios() -> TextTable:
    ratios = paper.published_dpo_over_ce()
    variance = paper.fitted_variance(ratios)
    fitted = [paper.dpo_over_ce(r, variance=variance) for r in paper.RESPONSES]
    pairs = [paper.implied_pairs(ratio, r) for ratio, r in zip(ratios, paper.RESPONSES, strict=True)]
    return TextTable(
        title="Figure 3: ratios of development FLOPs",
        columns=("responses an instruction", *map(str, paper.RESPONSES)),
        rows=(
            ("Math-Shepherd / CE, published", *_texts(paper.SHEPHERD_OVER_CE)),
            ("AutoPSV / CE, published", *_texts(paper.AUTOPSV_OVER_CE)),
            ("Math-Shepherd / DPO, published", *_texts(paper.SHEPHERD_OVER_DPO)),
            ("Math-Shepherd / DPO, reproduced", *_texts(paper.reproduced_shepherd_over_dpo())),
            ("DPO / CE, from the published", *_texts(ratios, ".3f")),
            ("DPO / CE = 2 E[p(1-p)] (r - 1)", *_texts(fitted, ".3f")),
            ("pairs that the published take", *_texts(pairs, ",.0f")),
        ),
        note=(
            "Reproduced: training charged by the sequence, DPO on every pair of a right and a wrong response, one "
            f"number fitted: E[p(1-p)] = {variance:.3f}. A line through the published DPO / CE meets r = 1 at "
            f"{paper.fitted_intercept(ratios):.4f}: the rollouts, which both methods share, were not charged."
        ),
    )


def _implied() -> TextTable:
    rows = []
    for per_token, what in ((6, "training"), (8, "and the reference, or drawing"), (10, "and both")):
        tokens = paper.implied_tokens(per_token=per_token)
        rows.append((
            f"{per_token} P: {what}", f"{tokens.response:,.0f}", f"{tokens.generated:,.0f}", f"{tokens.rollout:,.0f}",
        ))  # fmt: skip
    return TextTable(
        title="What Math-Shepherd / CE = 38.8 takes",
        columns=(
            "charged to CE a token", "tokens a response", "tokens generated to label one response",
            "the same a rollout, of 80",
        ),
        rows=tuple(rows),
        note=(
            f"From the bar of Figure 3 ({paper.SHEPHERD_FLOPS:.3g} FLOPs at 8 responses), {paper.PARAMETERS:.3g} "
            f"parameters and {paper.INSTRUCTIONS:,} instructions: about 62,000 generated tokens a response, whatever "
            "CE is charged. The paper does not state token counts, so the ratio cannot be derived from it."
        ),
    )  # fmt: skip


def _stated() -> TextTable:
    rows = [
        (f"{length:g}", *(f"{paper.derivable_ratio(per_token=c, length=length):.1f}" for c in (6, 8, 10)))
        for length in (1.0, 0.45)
    ]
    return TextTable(
        title="Math-Shepherd / CE from what the paper does state: 10 steps, 8 completions each",
        columns=("tokens of a rollout, in responses", "CE at 6 P", "at 8 P", "at 10 P"),
        rows=tuple(rows),
        note=(
            "1: every rollout as long as a response; 0.45: only what is left to write after a step, on average over "
            "ten equal steps. The published 38.8 lies above all of these."
        ),
    )


def _best_of_n() -> TextTable:
    columns = paper.TABLE_3
    shares = [100 * column.baseline_total / column.implicit_total for column in columns]
    return TextTable(
        title="Table 3: GPU time of best-of-N, in % of generation, as published",
        columns=("", *(column.generator for column in columns)),
        rows=(
            ("reward model, one model, as printed", *_texts([column.baseline for column in columns])),
            ("the same, from the printed total", *_texts([column.baseline_from_total for column in columns])),
            ("reward model, policy and reference", *_texts([column.implicit for column in columns])),
            ("total, one model", *_texts([column.baseline_total for column in columns])),
            ("total, policy and reference", *_texts([column.implicit_total for column in columns])),
            ("one model's total, in % of two models'", *_texts(shares)),
        ),
        note=(
            "The printed row of the one-model scorer does not go with its totals: it is that scorer's share of the two "
            "models' total. From the totals it costs half of what policy and reference cost."
        ),
    )


def _texts(values: Sequence[float], spec: str = ".1f") -> list[str]:
    return [format(value, spec) for value in values]
