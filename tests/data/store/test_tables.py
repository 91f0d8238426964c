import pytest

from posture.data.store.tables import Store
from posture.errors import InputError
from tests.support.store_checks import check_store, segments


def test_a_store_in_a_folder(tmp_path):
    check_store(str(tmp_path / "store"))


def test_nothing_new_makes_no_version(tmp_path):
    store = Store(str(tmp_path), create=True)
    store.create_tables()
    store.append("segments", segments())
    store.upsert("segments", segments(), keys=["segment"])
    store.delete("segments", "segment", [])
    store.commit_files("clips", [])
    assert set(store.versions().values()) == {0}


def test_a_missing_store_is_refused_with_the_way_to_make_one(tmp_path):
    with pytest.raises(InputError, match=r"there is no store here; make one with: posture ingest"):
        Store(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
