"""Serves indexes whose shards lie on a Ray cluster. Only `service.cluster.serve` imports ray."""
