"""Streams that are read as they come, from a server on this machine."""

import functools
import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from posture.data.decode import live_source
from posture.data.decode.cut import Clip
from posture.data.decode.live_frames import live_frames
from posture.data.decode.live_source import LiveSource
from posture.data.decode.sandbox import Sandbox
from posture.data.store.schema import DecodeRecipe
from posture.errors import InputError, Unreadable
from tests.support.live_server import live_server, transport_stream


def bright(count, first=0):
    """Frames that become brighter by 2 levels each."""
    return [np.full((48, 64, 3), 2 * (first + number) % 250, np.uint8) for number in range(count)]


def source(address):
    found = LiveSource.parse(address)
    assert found is not None
    return found


def read(messages):
    """Return the stream message, rows of each role, frames of each role, and the notes."""
    stream, rows, notes = {}, {}, []
    frames = {}
    for item in messages:
        if isinstance(item, Clip):
            row = item.row
            rows.setdefault(row["role"], []).append(row)
            pixels = np.frombuffer(item.pixels, np.uint8).reshape(-1, row["height"], row["width"], 3)
            frames.setdefault(row["role"], []).extend(pixels)
        elif item["kind"] == "stream":
            stream = item
        elif item["kind"] == "note":
            notes.append(item["note"])
    return stream, rows, frames, notes


def joined(rows, name):
    return [value for row in rows for value in row[name]]


def test_frames_have_the_times_of_the_stream_and_end_with_the_next():
    with live_server(transport_stream(bright(60))) as address:
        messages = live_frames(source(address), recipe=DecodeRecipe(24, 32, 8, 1), longest=32, shown=40, seconds=1.2)
        stream, rows, frames, notes = read(messages)
    assert (stream["width"], stream["height"], stream["first"], stream["every"]) == (64, 48, 0, 1)
    assert stream["fps"] == pytest.approx(25) and not notes
    assert set(rows) == {"clip", "search", "shown"}
    for role, size in {"clip": (24, 32), "search": (24, 32), "shown": (30, 40)}.items():
        assert joined(rows[role], "numbers") == list(range(30))
        np.testing.assert_allclose(joined(rows[role], "times"), np.arange(30) / 25, atol=2e-3)
        np.testing.assert_allclose(joined(rows[role], "ends"), np.arange(1, 31) / 25, atol=2e-3)
        assert all(frame.shape[:2] == size for frame in frames[role])
        levels = [frame.mean() for frame in frames[role]]
        np.testing.assert_allclose(levels, 2 * np.arange(30), atol=4)


def test_athletes_are_looked_for_at_most_as_often_as_asked():
    with live_server(transport_stream(bright(40))) as address:
        stream, rows, _, _ = read(live_frames(source(address), longest=32, shown=32, fps_cap=10, seconds=1.0))
    assert stream["every"] == 3
    assert joined(rows["search"], "numbers") == list(range(0, 25, 3))
    assert joined(rows["shown"], "numbers") == list(range(25))


def test_a_lost_connection_is_made_again_and_leaves_a_gap(monkeypatch):
    monkeypatch.setattr(live_source, "AHEAD_SECONDS", 0.0)  # as a camera, which sends no frame early
    with live_server(transport_stream(bright(30)), transport_stream(bright(80))) as address:
        _, rows, frames, notes = read(live_frames(source(address), longest=64, seconds=3.0, reconnects=3))
    numbers, times = np.array(joined(rows["search"], "numbers")), np.array(joined(rows["search"], "times"))
    assert numbers[:30].tolist() == list(range(30)) and len(numbers) > 35
    assert (np.diff(numbers) > 1).sum() == 1 and numbers[30] > 30
    assert times[30] - times[29] >= 0.9 and (np.diff(times) > 0).all() and times[-1] < 3.0
    assert frames["search"][30].mean() < 10, "the second connection begins with its first frame"
    assert len(notes) == 1 and notes[0].endswith("lost, and made again: the stream ended")


def test_after_the_last_attempt_what_came_is_kept_and_the_reason_is_told():
    seen = []
    with live_server(transport_stream(bright(30))) as address, pytest.raises(Unreadable) as lost:
        for item in live_frames(source(address), longest=64, reconnects=1):
            seen += item.row["numbers"] if isinstance(item, Clip) else []
    assert seen == list(range(30))
    assert "lost after 1.20 s, and 1 attempt to reconnect failed" in str(lost.value)


def test_a_file_on_a_web_server_ends_with_its_end(tmp_path):
    (tmp_path / "clip.ts").write_bytes(transport_stream(bright(20)))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        _, rows, _, notes = read(live_frames(source(f"http://127.0.0.1:{server.server_port}/clip.ts"), longest=64))
        server.shutdown()
    assert joined(rows["search"], "numbers") == list(range(20)) and not notes


def test_a_slow_taker_gets_stretches_without_gaps_and_the_number_of_dropped_frames(monkeypatch):
    monkeypatch.setattr(live_source, "BUFFERED_FRAMES", 10)
    monkeypatch.setattr(live_source, "AHEAD_SECONDS", 60.0)  # all frames come at once, so that it is slow
    numbers, dropped = [], 0
    with live_server(transport_stream(bright(100))) as address:
        reader = live_source.LiveReader(source(address), seconds=3.9, reconnects=0)
        reader._changed.acquire()  # nothing is taken while all of it comes
        reader._changed.wait_for(lambda: reader._is_over or reader.dropped >= 80, timeout=30)
        reader._changed.release()
        while (taken := reader.take(8, wait=0.5)) is not None:
            assert [frame.number for frame in taken] == list(range(taken[0].number, taken[0].number + len(taken)))
            numbers += [frame.number for frame in taken]
        dropped = reader.dropped
    assert numbers[:10] == list(range(10)) and dropped >= 80 and len(numbers) + dropped == 98


SECRET = "http://coach:hunter2@127.0.0.1:{port}/cam?token=hunter3#hunter4"


def test_what_cannot_be_opened_is_told_without_credentials():
    found = source(SECRET.format(port=9))
    assert found.name == "http://127.0.0.1:9/cam"
    with pytest.raises(Unreadable) as refused, Sandbox() as sandbox:
        list(sandbox.live(found, recipe=None, longest=64))
    assert str(refused.value) == "Connection refused"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtsp://user:p@ss@cam.local:8554/a/b?x=1", "rtsp://cam.local:8554/a/b"),
        ("https://[::1]:8443/live.m3u8", "https://[::1]:8443/live.m3u8"),
        ("RTSP://cam/", "rtsp://cam/"),
    ],
)
def test_names_have_no_credentials(text, name):
    assert source(text).name == name


@pytest.mark.parametrize(
    "text", ["clip.mp4", "s3://bucket/clip.mp4", "folder/camera:0", "/dev/null", "file:///etc/passwd"]
)
def test_files_are_no_live_sources(text):
    assert LiveSource.parse(text) is None


@pytest.mark.parametrize("text", ["rtsp://", "http://:pass@/x", "http://host:port/x", "camera:97", "/dev/video97"])
def test_an_address_without_a_host_and_a_camera_that_is_not_there_are_refused(text):
    with pytest.raises(InputError) as refused:
        LiveSource.parse(text)
    assert "pass" not in str(refused.value)


def test_a_playlist_from_a_server_reads_no_file_of_this_machine(tmp_path):
    (tmp_path / "own.ts").write_bytes(transport_stream(bright(30)))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\nfile://{tmp_path}/own.ts\n#EXT-X-ENDLIST\n".encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.apple.mpegurl")
            self.send_header("Content-Length", str(len(playlist)))
            self.end_headers()
            self.wfile.write(playlist)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/live.m3u8"
        with pytest.raises(Unreadable):
            list(live_frames(source(address), longest=64, seconds=1.0, reconnects=0))
        server.shutdown()
