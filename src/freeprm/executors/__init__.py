"""Where the work of a stage is done, one file a member."""
