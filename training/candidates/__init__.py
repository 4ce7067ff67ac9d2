"""Candidate lists: which passages a query is learned with, and what a teacher says of them."""
