"""Training objectives: one file a member, each a pure function of rewards and labels."""
