"""Videos whose frames do not come at an even pace: what a label holds is counted, not estimated."""

import pytest

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.labels.videos import read_footage
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from tests.support.numbered import write_numbered

PAUSE_SECONDS = 100
CUT = Cut(DecodeRecipe(24, 32, 8, 1, 1), 8, "refuse")


def stored(footage, uri, **settings):
    """Segments in the store as {(start, end)}, and the refusals of the ingest."""
    store = Store(str(uri), create=True)
    report = ingest_clips(
        read_footage(str(footage)), store, IngestOptions(**{"cut": CUT, "max_refused_share": 1.0} | settings)
    )
    return {(row["start"], row["end"]) for row in store.read("segments").to_pylist()}, report


@pytest.fixture
def footage(tmp_path):
    """Two seconds at 25 frames/s, a pause, and two more."""
    stamps = [24 * number + (600 * PAUSE_SECONDS if number >= 50 else 0) for number in range(100)]
    (tmp_path / "footage").mkdir()
    write_numbered(tmp_path / "footage" / "a.mp4", frames=100, stamps=stamps)
    return tmp_path / "footage"


def test_a_label_beside_a_pause_is_kept_and_one_within_it_refused(footage, tmp_path):
    (footage / "labels.csv").write_text(
        "video,start,end,label\na.mp4,0.5,1,jump\na.mp4,102.5,103,run\na.mp4,30,60,wait\na.mp4,1,1.2,short\n"
    )
    segments, report = stored(footage, tmp_path / "S")
    assert segments == {(0.5, 1.0), (102.5, 103.0)}
    assert sorted(item["reason"] for item in report.refused) == [
        "short from 1 s to 1.2 s: 5 frames to store; one clip needs 8",
        "wait from 30 s to 60 s: 0 frames to store; one clip needs 8",
    ]
    (footage / "labels.csv").write_text("video,start,end,label\na.mp4,0.5,1,jump\na.mp4,102.5,103,run\n")
    segments, report = stored(footage, tmp_path / "S")
    assert segments == {(0.5, 1.0), (102.5, 103.0)} and (report.decoded, report.retired, report.refused) == (0, 0, [])
