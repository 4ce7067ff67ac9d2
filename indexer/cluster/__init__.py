"""Builds a snapshot on a Ray cluster. Only `indexer.cluster.build` imports ray."""
