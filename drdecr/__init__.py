"""What training, the indexer and the service share: encoder, index, corpus files, command line."""

__version__ = "0.1.0"
