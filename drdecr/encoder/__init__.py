"""From text to token vectors."""
