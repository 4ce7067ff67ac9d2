"""Vocabulary transfer: an English encoder learns to read a multilingual vocabulary, without training."""
