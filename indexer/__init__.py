"""Builds, verifies and describes snapshots."""
