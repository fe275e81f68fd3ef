"""What a user describes: functions, policies, sources, sinks, the logical graph, and the plan made from it. Runs nothing."""
