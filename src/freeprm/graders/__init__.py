"""Ways to decide whether an answer is right, one file a member."""
