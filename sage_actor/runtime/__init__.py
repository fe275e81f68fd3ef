"""What runs a plan: stages, tasks, routing, channels, workers, the coordinator."""
