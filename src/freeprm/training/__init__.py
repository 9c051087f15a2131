"""Fitting the reward to outcome labels: settings, examples, and one trainer for every objective."""
