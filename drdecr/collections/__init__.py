"""What the service and the job worker share: the data directory, its aliases, staged uploads and jobs."""
