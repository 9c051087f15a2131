"""Reward models side by side: trained on the same rollouts, choosing among the same answers, with what each costs."""
