"""Published late-interaction checkpoints become student directories."""
