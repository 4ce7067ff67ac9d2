"""The HTTP service: one encoder, some snapshots, an answer a query."""
