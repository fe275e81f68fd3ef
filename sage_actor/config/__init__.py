"""Settings from outside the program: environment variables, the data directory, tokens, addresses."""
