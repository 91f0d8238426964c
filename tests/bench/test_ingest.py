import json

from posture.bench.ingest import RECIPE, cost_note, cpu_time
from posture.data.labels.videos import read_footage
from tests.support.footage import make_class_folders


def test_what_a_clip_costs(tmp_path):
    cost = cpu_time(read_footage(str(make_class_folders(tmp_path / "footage", per_class=1))).videos)
    assert cost == json.loads(json.dumps(cost)) and cost["files"] == 2
    assert 0 < cost["probe_share"] < 1 and all(rate > 0 for rate in cost["per_cpu_second"].values())
    assert 0 < cost["clip_bytes"] < RECIPE.frames * RECIPE.height * RECIPE.width * 3, "what is stored is compressed"
    assert f"{cost['per_cpu_second']['taken_in']:.1f} clips" in cost_note(cost)
