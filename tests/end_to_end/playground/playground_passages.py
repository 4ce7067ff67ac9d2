"""What the playground's tests search."""

from __future__ import annotations

# The tiny student reads 128 tokens, of which a word of letters that it does not know is one.
LONG = f"{'œ' * 14} " * 40 + "Zebras graze here. " + f"{'œ' * 14} " * 40
PASSAGES = [
    {"id": "cats", "title": "Cats", "text": "All about cats.", "metadata": {"kind": "animal", "legs": 4}},
    {
        "id": "dogs",
        "title": "Dogs",
        "text": "All about dogs.",
        "metadata": {"kind": "animal", "tags": ["loud", "dear"]},
    },
    {"id": "moons", "title": "Moons", "text": "All about moons.", "metadata": {"kind": "world"}},
    {"id": "zebras", "text": LONG, "metadata": {"kind": "animal"}},
    {"id": "markup", "title": "<b>Quux</b>", "text": "<img src=x onerror='document.title=1'> quux quux."},
    {"id": "faces", "title": "Faces", "text": "😀🐈 wombat 😀 wombat."},
]
