"""The supervisor process over HTTP, its client, and RemoteEnvironment. Importing this package loads no HTTP framework."""
