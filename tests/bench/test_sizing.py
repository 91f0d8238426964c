import json

import pytest

from posture.bench.sizing import FOOTAGE, Figures, footage_table, main, read_figures, training_table
from posture.errors import InputError

FIGURES = Figures(decoded=10.0, read=50.0, stored=1_000_000.0)
INGEST = {"measured": {"posture ingest, clips/s": [18.0, 20.0, 90.0]}, "cpus": 2, "clip_bytes": 1_000_000.0}
FEED = {"measured": {"posture, from memory": [400.0], "posture, streamed": [50.0, 40.0, 60.0]}, "cpus": 2}


def cells(table):
    """{first cell: {column: cell}} of a Markdown table."""
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


@pytest.fixture
def files(tmp_path):
    for name, content in (("ingest", INGEST), ("feed", FEED)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return [tmp_path / "ingest.json", tmp_path / "feed.json"]


def test_figures_are_medians_per_cpu(files):
    assert read_figures(files) == FIGURES


def test_figures_that_are_missing_are_named(files, tmp_path):
    with pytest.raises(InputError, match=r"posture bench feed --json feed\.json"):
        read_figures(files[:1])
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InputError, match=r"other\.json: no figures"):
        read_figures([tmp_path / "other.json"])


def test_footage():
    row = cells(footage_table(FIGURES, cpus_per_node=16))["10 M clips"]
    assert row == {"clips": "10,000,000", "in the store": "10.0 TB", "in memory": "21.0 TB",  # 32 frames of 128 x 171 x 3 bytes
                   "CPU hours to take in": "277.8", "hours on 10 nodes of 16 CPUs": "1.74"}


def test_training():
    row = cells(training_table(FIGURES, {"8 GPUs": 2_400.0}, cpus_per_node=16))["8 GPUs"]
    assert row["nodes of 16 CPUs that read a store"] == "3" and row["nodes that decode without one"] == "15"
    assert row["from storage"] == "19.20 Gbit/s" and row["to the GPU nodes"] == "40.34 Gbit/s"
    assert row["an epoch of UCF101"] == "6 s" and row["an epoch of 10 M clips"] == "1 h 9 min"


def test_the_readers_gpu_is_an_option(files, capsys):
    main([*map(str, files), "--train-clips-per-second", "300", "--gpus", "1", "8"])
    _, training = capsys.readouterr().out.strip().split("\n\n")
    assert list(cells(training)) == ["300 clips/s on 1 GPU", "2,400 clips/s on 8 GPUs"]
    main([*map(str, files)])
    footage, training = capsys.readouterr().out.strip().split("\n\n")
    assert list(cells(footage)) == list(FOOTAGE) and list(cells(training)) == ["100 clips/s", "1,000 clips/s", "10,000 clips/s"]
