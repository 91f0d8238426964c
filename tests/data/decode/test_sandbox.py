import os
import signal
import subprocess
import sys

import pytest

from posture.data.decode.cut import Clip, Cut
from posture.data.decode.sandbox import Sandbox
from posture.data.labels.records import Label
from posture.data.store.schema import DecodeRecipe
from posture.errors import Unreadable

CUT = Cut(DecodeRecipe(24, 32, 8, 1, 1), 4)
WHOLE = [Label(0.0, None, "kick", "ann", "train")]


def cut(sandbox, path, limit_seconds=60.0):
    return list(sandbox.cut(str(path), "content", WHOLE, CUT, limit_seconds=limit_seconds))


def test_clips_come_from_another_process(video):
    with Sandbox() as sandbox:
        items = cut(sandbox, video("a.mp4"))
        assert [item["kind"] if isinstance(item, dict) else len(item.pixels) for item in items] == [
            "stream",
            8 * 24 * 32 * 3,
            "segment",
        ]
        process = sandbox._process
        cut(sandbox, video("b.mp4", seed=1))
        assert sandbox._process is process
    assert process.returncode is not None


def test_a_decoder_that_hangs_is_killed_and_the_next_file_works(video):
    path = video("a.mp4")
    with Sandbox() as sandbox:
        cut(sandbox, path)
        hung = sandbox._process
        os.kill(hung.pid, signal.SIGSTOP)  # ignores every signal but SIGKILL, as a decoder in a native loop does
        with pytest.raises(Unreadable) as caught:
            cut(sandbox, path, limit_seconds=0.5)
        assert caught.value.verdict == "timeout"
        assert hung.returncode == -signal.SIGKILL
        assert any(isinstance(item, Clip) for item in cut(sandbox, path))


def test_a_decoder_that_dies_is_a_verdict(video):
    path = video("a.mp4", frames=200)
    many = [Label(second / 10, second / 10 + 1.5, "kick", "ann", "train") for second in range(60)]
    with Sandbox() as sandbox:
        messages = sandbox.cut(str(path), "content", many, CUT, limit_seconds=60)
        next(messages)
        sandbox._process.kill()
        with pytest.raises(Unreadable) as caught:
            list(messages)
        assert caught.value.verdict == "crashed"
        assert sum(isinstance(item, Clip) for item in cut(sandbox, path)) == 1


def test_bad_files_are_verdicts(tmp_path, video):
    (tmp_path / "text.mp4").write_text("no film" * 99)
    with Sandbox() as sandbox:
        with pytest.raises(Unreadable) as caught:
            cut(sandbox, tmp_path / "text.mp4")
        assert caught.value.verdict == "not_video"
        assert len(cut(sandbox, video("a.mp4"))) == 3


def test_a_caller_that_stops_early_leaves_nothing_behind(video):
    with Sandbox() as sandbox:
        messages = sandbox.cut(str(video("a.mp4")), "content", WHOLE, CUT, limit_seconds=60)
        next(messages)
        messages.close()
        assert len(cut(sandbox, video("b.mp4", seed=1))) == 3


CAREFUL = """
import signal, sys
from posture.data.decode.cut import Clip
from posture.data.decode.sandbox import Sandbox

signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
with Sandbox() as sandbox:
    items = sandbox.stream(sys.argv[1], recipe=None, longest=None, limit_seconds=60)
    next(items), next(items)
    print("begun", flush=True)
    sys.stdin.readline()
    print(8 + sum(len(item.row["numbers"]) for item in items if isinstance(item, Clip)))
"""


def test_ctrl_c_does_not_end_the_decoder_of_a_parent_that_goes_on(video):
    with subprocess.Popen(
        [sys.executable, "-c", CAREFUL, str(video("a.mp4", frames=200))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout.readline() == "begun\n"
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout.readline() == "interrupted\n"
        answer, _ = parent.communicate("go on\n")
    assert answer == "200\n"
