"""Sources of problems, one file a member."""
