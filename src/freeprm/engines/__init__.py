"""Sources of rollouts, one file a member."""
