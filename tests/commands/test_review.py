import pytest

from posture.__main__ import main
from posture.retrain.registry import Registry


def complaint(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["review", *arguments])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_without_a_champion_there_is_nobody_to_ask(tmp_path, capsys):
    places = ["--registry", str(tmp_path / "registry"), "--store", str(tmp_path / "store"), "--footage", str(tmp_path)]
    assert "there is no registry here" in complaint(capsys, *places)
    Registry(str(tmp_path / "registry"), create=True).write_json({"time": 0.0}, "last.json")
    assert "there is no champion yet" in complaint(capsys, *places)
    assert 'Invalid value "0" for --count. Must be from 1 to 1,000.' in complaint(capsys, *places, "--count", "0")
    assert 'Invalid value "70000" for --port. Must be from 0 to 65,535.' in complaint(
        capsys, *places, "--port", "70000"
    )
