"""RLHFlow's process reward model on Mistral's data: as on Deepseek's, with another way of cutting responses.

The data has `Step 1: ... ки`, a line a step; the authors cut at the markers and take them out, so a response here comes
without them. See `freeprm.scorers.rlhflow_deepseek`.

Source: RLHFlow/RLHF-Reward-Modeling, math-rm/prm_evaluate.py at 5b2a281.
"""

from dataclasses import replace

from freeprm.scorers import rlhflow_deepseek

PLUGIN = replace(
    rlhflow_deepseek.PLUGIN,
    name="rlhflow_mistral",
    released=("RLHFlow/Llama3.1-8B-PRM-Mistral-Data",),
    splitter="auto",  # ans.split("ки\n") (prm_evaluate.py:45), which ends the lines that begin `Step i:`
)
