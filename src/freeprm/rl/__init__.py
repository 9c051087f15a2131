"""Reward models as the reward functions of RL trainers: TRL, verl, OpenRLHF; and rewards of single tokens."""
