"""Small ingest options, and the content of a store to compare."""

from __future__ import annotations

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store

OPTIONS = IngestOptions(cut=Cut(DecodeRecipe(32, 40, 20, 2, 1)))


def contents(store, tables=("videos", "groups", "segments", "clips")):
    """Return the sorted rows of a store's tables, those of footage unless others are named."""
    store = Store(str(store))
    return {name: sorted(map(str, store.read(name).to_pylist())) for name in tables}
