import json
from pathlib import Path

import pytest

from cluster.sizing import FOOTAGE, Figures, footage_table, main, training_table
from posture.errors import InputError

FIGURES = Figures(taken_in=10.0, read=50.0, stored=1_000_000.0)
MEASURED = {
    "cost": {
        "files": 30,
        "probe_share": 0.03,
        "clip_bytes": 1_000_000.0,
        "per_cpu_second": {"taken_in": 20.0, "read": 100.0},
    }
}


def cells(table):
    """{first cell: {column: cell}} of a Markdown table."""
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "ingest.json").write_text(json.dumps(MEASURED))
    return tmp_path / "ingest.json"


def test_figures_are_for_cpus_that_are_busy_half_of_the_time(file):
    assert Figures.of(file, busy=0.5) == FIGURES


@pytest.mark.parametrize("content", ["", "[]", '{"measured": {}}', '{"cost": {"clip_bytes": 1}}'])
def test_a_file_without_figures_is_refused_with_the_command_that_writes_them(tmp_path, content):
    (tmp_path / "ingest.json").write_text(content)
    with pytest.raises(InputError, match=r"posture bench ingest --json ingest\.json"):
        Figures.of(tmp_path / "ingest.json")


def test_footage():
    row = cells(footage_table(FIGURES, cpus_per_node=16))["10 M clips"]
    # 32 frames of 128 x 171 x 3 bytes
    assert row == {
        "clips": "10,000,000",
        "in the store": "10.0 TB",
        "in memory": "21.0 TB",
        "CPU hours to take in": "277.8",
        "on 10 nodes of 16 CPUs": "1 h 44 min",
    }


def test_training():
    row = cells(training_table(FIGURES, {"8 GPUs": 2_400.0}, cpus_per_node=16))["8 GPUs"]
    assert row["nodes of 16 CPUs that read a store"] == "3" and row["nodes that decode without one"] == "15"
    assert row["from storage"] == "19.20 Gbit/s" and row["to the GPU nodes"] == "40.34 Gbit/s"
    assert row["an epoch of UCF101"] == "6 s" and row["an epoch of 10 M clips"] == "1 h 9 min"


def test_the_readers_gpu_is_an_option(file, capsys):
    main([str(file), "--train-clips-per-second", "300", "--gpus", "1", "8"])
    _, training = capsys.readouterr().out.strip().split("\n\n")
    assert list(cells(training)) == ["300 clips/s on 1 GPU", "2,400 clips/s on 8 GPUs"]
    main([str(file)])
    footage, training = capsys.readouterr().out.strip().split("\n\n")
    assert list(cells(footage)) == list(FOOTAGE) and list(cells(training)) == [
        "100 clips/s",
        "1,000 clips/s",
        "10,000 clips/s",
    ]


def test_the_tables_in_the_readme_are_what_its_figures_give(capsys):
    cluster = Path(__file__).parents[2] / "cluster"
    main([str(cluster / "figures.json")])
    told = (cluster / "README.md").read_text()
    assert capsys.readouterr().out.strip() in told
    cost = json.loads((cluster / "figures.json").read_text())["cost"]
    rates = cost["per_cpu_second"]
    words = " ".join(told.split())
    assert f"{rates['taken_in']:.1f} clips taken in by a second of CPU time, {rates['read']:.0f} read" in words
    assert f"{cost['clip_bytes'] / 1e6:.2f} MB each as stored" in words
