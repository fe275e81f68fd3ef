"""The command line: one file a command, each thin. The only layer that prints."""
