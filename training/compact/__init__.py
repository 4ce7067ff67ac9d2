"""A student small enough for a repository: one graph, and what rebuilds the torch student from it."""
