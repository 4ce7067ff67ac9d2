"""Offline: data sets, teacher, alignment, losses, stages, evaluation, report."""
