"""The embedded world: word problems whose every solution step can be checked exactly."""
