"""What a server answers to: a file a client, each with `routes`, which the application includes."""
