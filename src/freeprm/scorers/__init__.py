"""Reward models, one file a member."""
