"""From a query in any language to English: what only the two-stage teacher needs."""
