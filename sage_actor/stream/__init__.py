"""The stream processor: face, graph, plan, chains, tasks, and the jobs that run them."""
