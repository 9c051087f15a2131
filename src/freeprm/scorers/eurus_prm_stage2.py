"""EurusPRM's second stage: as the first, with another aggregator of step scores.

See `freeprm.scorers.eurus_prm_stage1`. The card takes "accumulative rewards", the sum of all steps' rewards, which is
the last of the accumulated scores.

Source: the card of PRIME-RL/EurusPRM-Stage2.
"""

from dataclasses import replace

from freeprm.scorers import eurus_prm_stage1

PLUGIN = replace(
    eurus_prm_stage1.PLUGIN, name="eurus_prm_stage2", released=("PRIME-RL/EurusPRM-Stage2",), aggregation="last"
)
