"""Token vectors to ranked passages: snapshots, and the search over them."""

from drdecr.index.backend import EXACT, Hit, SearchBackend, SearchParams, StageTimes
from drdecr.index.manifest import Manifest
from drdecr.index.snapshot import Snapshot, TokenMatch

__all__ = ["EXACT", "Hit", "Manifest", "SearchBackend", "SearchParams", "Snapshot", "StageTimes", "TokenMatch"]
