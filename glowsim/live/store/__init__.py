"""State that survives: SQLite with one writer, what is acknowledged is on the disk."""

from glowsim.live.store.database import StoreError
from glowsim.live.store.histogram import Histogram
from glowsim.live.store.store import Store

__all__ = ["Histogram", "Store", "StoreError"]
