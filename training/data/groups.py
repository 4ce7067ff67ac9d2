"""Which texts must stay together in a split, and which side each group goes to."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable


class Groups:
    """Union-find over anything hashable: items that were ever joined are one group."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def join(self, items: Iterable[Hashable]) -> None:
        """Put all items, new ones included, into one group."""
        roots = {self.root(item) for item in items}
        if roots:
            first = roots.pop()
            for root in roots:
                self._parent[root] = first

    def root(self, item: Hashable) -> Hashable:
        """Return the item that stands for this item's group; it changes when groups are joined."""
        self._parent.setdefault(item, item)
        while (parent := self._parent[item]) != item:
            self._parent[item] = self._parent[parent]
            item = parent
        return item


def is_held_out(key: str, share: float) -> bool:
    """Decide by the key's SHA-256 alone, so that a key keeps its side in every version of the data."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") < share * 2**64
