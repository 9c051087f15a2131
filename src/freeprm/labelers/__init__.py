"""Ways to label the steps of responses whose outcome alone is known, one file a member."""
