import shutil

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.labels.videos import read_footage
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from tests.support.footage import make_video


def test_a_duplicate_under_another_label_names_both(tmp_path):
    make_video(tmp_path / "in" / "jump" / "a.mp4")
    for place in ("run/b.mp4", "jump/c.mp4"):
        (tmp_path / "in" / place).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "in" / "jump" / "a.mp4", tmp_path / "in" / place)
    store, options = Store(str(tmp_path / "store"), create=True), IngestOptions(cut=Cut(DecodeRecipe(32, 40, 20)))
    for _ in range(2):
        report = ingest_clips(read_footage(str(tmp_path / "in")), store, options)
        assert {item["uri"].rpartition("/in/")[2]: item["reason"] for item in report.refused} == {
            "jump/c.mp4": "the same content as jump/a.mp4",
            "run/b.mp4": "the same content as jump/a.mp4, which is labelled jump; this one is labelled run",
        }
    assert [row["label"] for row in store.read("segments").to_pylist()] == ["jump"]
