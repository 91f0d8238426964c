"""Answers about unlabelled footage: the round, who the server listens to, and the page in a real browser."""

import contextlib
import csv
import http.client
import json
import shutil
import socket
import threading
import urllib.request

import numpy as np
import pytest

from posture.data.labels.videos import read_footage
from posture.errors import InputError
from posture.retrain.review import server as review_server
from posture.retrain.review.server import MOST_CONNECTIONS, ReviewServer
from tests.support.review_pages import CLASSES, find_asked, open_browser, open_review, served

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return find_asked(tmp_path_factory)


@pytest.fixture
def review(asked, footage):
    with contextlib.closing(open_review(asked[0], footage)) as review:
        yield review


@pytest.fixture
def server(review):
    with served(review) as server:
        yield server


@pytest.fixture
def footage(asked, tmp_path):
    return shutil.copytree(asked[1], tmp_path / "footage")


def answers(footage):
    path = footage / "review.csv"
    return (
        {row["video"]: row["label"] for row in csv.DictReader(path.read_text().splitlines())} if path.exists() else {}
    )


def test_answers_are_written_at_once_and_may_be_changed(review, footage):
    assert [item["suggested"][0] for item in review.describe()["questions"]] == [
        ["run", 0.5],
        ["jump", 0.4],
        ["throw", 0.8],
    ]
    review.answer(0, "labelled", " long  jump ")
    review.answer(1, "not_usable")
    review.answer(2, "skipped")
    assert answers(footage) == {"new one.mp4": "long jump", "new two.mp4": ""}
    assert review.describe()["classes"] == [*CLASSES, "long jump"] and review.counts() == {
        "labelled": 1,
        "not_usable": 1,
        "skipped": 1,
        "open": 0,
    }
    review.answer(0, "labelled", "run")
    review.answer(1, "open")
    assert answers(footage) == {"new one.mp4": "run"}
    labelled = {video.file.relative: video.labels[0].label for video in read_footage(str(footage)).videos}
    assert labelled == {"jump/a.mp4": "jump", "run/b.mp4": "run", "new one.mp4": "run"}


@pytest.mark.parametrize(
    ("number", "state", "label"),
    [
        (3, "skipped", None),
        (-1, "skipped", None),
        ("0", "skipped", None),
        (True, "skipped", None),
        (None, "skipped", None),
        (0, "labelled", None),
        (0, "labelled", " "),
        (0, "right", None),
    ],
)
def test_answers_that_are_none_change_nothing(review, footage, number, state, label):
    with pytest.raises(InputError):
        review.answer(number, state, label)
    assert not answers(footage) and review.counts()["open"] == 3


def test_the_images_are_those_of_the_stretch(review):
    import cv2

    from posture.data.decode.video import Reader

    clip = json.loads(review.images(0))
    assert len(clip["frames"]) == 20 and clip["rate"] == pytest.approx(12.5)
    own = Reader(review.questions[0].asked.uri, height=64, width=96).frames([0, 38])
    with urllib.request.urlopen(clip["frames"][0]) as first, urllib.request.urlopen(clip["frames"][-1]) as last:
        for source, frame in zip((first, last), own, strict=True):
            shown = cv2.imdecode(np.frombuffer(source.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
            assert np.abs(shown.astype(int) - frame).mean() < 12


def ask(server, path, *, method="GET", body=None, host=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    own = f"127.0.0.1:{server.server_port}"
    connection.request(
        method,
        path,
        body=body,
        headers={"Host": host or own, **{name.replace("_", "-"): value for name, value in headers.items()}},
    )
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def test_only_who_knows_the_address_is_answered(server):
    assert server.server_address[0] == "127.0.0.1"
    token = f"/{server.token}/"
    status, headers, page = ask(server, token)
    assert (
        status == 200
        and b"What does this show?" in page
        and "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    )
    assert b"http://" not in page and b"https://" not in page, "nothing is fetched from elsewhere"
    assert ask(server, f"{token}questions")[0] == 200 and ask(server, f"{token}review.js")[0] == 200
    for path in (
        "/",
        "/questions",
        token[:-1],
        f"{token[:-2]}/questions",
        f"{token}../../etc/passwd",
        f"{token}review.py",
        f"{token}images/x",
    ):
        assert ask(server, path)[0] == 404, path
    assert ask(server, f"{token}questions", host=f"evil.example:{server.server_port}")[0] == 404, (
        "a name that somebody points here"
    )
    assert ask(server, f"{token}images/7")[0] == 422


def test_answers_come_from_the_page_alone(server, footage):
    path, origin = f"/{server.token}/answer", server.url.split(f"/{server.token}")[0]
    answer = json.dumps({"question": 0, "state": "labelled", "label": "run"})
    as_json = {"Content_Type": "application/json"}
    assert ask(server, path, method="POST", body=answer, **as_json)[0] == 403
    assert ask(server, path, method="POST", body=answer, Origin="http://evil.example", **as_json)[0] == 403
    assert ask(server, path, method="POST", body=answer, Origin="null", **as_json)[0] == 403
    assert ask(server, path, method="POST", body=answer, Origin=origin, Content_Type="text/plain")[0] == 403
    assert ask(server, "/guess/answer", method="POST", body=answer, Origin=origin, **as_json)[0] == 404
    for body in ("[]", "{", '{"question": 9, "state": "skipped"}', "[" * 5000):
        status, _, content = ask(server, path, method="POST", body=body, Origin=origin, **as_json)
        assert status == 400 and json.loads(content)["error"]
    assert ask(server, path, method="POST", body="x" * 20_000, Origin=origin, **as_json)[0] == 413
    assert not answers(footage)
    assert ask(server, path, method="POST", body=answer, Origin=origin, **as_json)[0] == 200
    assert answers(footage) == {"new one.mp4": "run"}


def answering():
    """Threads that serve a connection."""
    return [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]


@pytest.mark.parametrize(
    "sent",
    ["", "GET /", "GET / HTTP/1.1\r\nHost: x\r\nX: ", "POST /{token}/answer HTTP/1.1\r\nContent-Length: 900\r\n\r\n{"],
)
def test_slow_clients_take_no_more_threads_than_there_are_and_keep_nobody_out(server, sent):
    clients = []
    try:
        for number in range(300):
            clients.append(socket.create_connection(("127.0.0.1", server.server_port), timeout=60))
            clients[-1].sendall(sent.replace("{token}", server.token).encode())
            if number % 60 == 59:
                assert ask(server, f"/{server.token}/questions")[0] == 200
                assert 0 < len(answering()) <= MOST_CONNECTIONS
    finally:
        for client in clients:
            client.close()


def test_who_has_waited_too_long_is_dropped(server, monkeypatch):
    monkeypatch.setattr(review_server, "WAITING_SECONDS", 0.0)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as client:
        client.sendall(b"GET /")
        assert client.recv(10) == b""


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        ("GET /{token}/images/" + "9" * 5000, "", 404),
        ("GET /{token}/images/" + "9" * 18, "", 404),
        ("GET /" + "x" * 40_000, "", 414),
        ("GET /{token}/images/9999999999", "", 422),
        ("GET /{token}/questions", "X: " + "y" * 40_000, 431),
        ("GET /{token}/questions", "X: y\r\n" * 150, 431),
        ("POST /{token}/answer", "Content-Length: " + "9" * 5000, 413),
        ("POST /{token}/answer", "Content-Length: -1", 413),
        ("POST /{token}/answer", "Content-Length: 10_0", 413),
        ("POST /{token}/answer", "Transfer-Encoding: chunked\r\nContent-Length: 5", 413),
        ("PUT /{token}/answer", "", 501),
        ("GET /{token}/\xff\xfe", "", 404),
        ("GET /\u0660/questions", "", 400),
        ("GET", "", 400),
        ("\x00\x01", "", 400),
    ],
)
def test_long_and_odd_requests_get_a_status_and_no_traceback(server, capfd, request_line, headers, status):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as client:
        first = request_line.replace("{token}", server.token).encode()
        client.sendall(
            first
            + (b" HTTP/1.1\r\n" if b" " in first else b"\r\n")
            + f"Host: 127.0.0.1:{server.server_port}\r\n".encode()
            + (f"{headers}\r\n" if headers else "").encode()
            + b"Connection: close\r\n\r\n"
        )
        with contextlib.suppress(ConnectionError):  # it does not read what is too long to its end
            answer = client.recv(65536)
            assert (
                not answer
                or f" {status} ".encode() in answer.splitlines()[0]
                or (status == 400 and b"Error code: 400" in answer)
            ), answer[:300]
    assert ask(server, f"/{server.token}/questions")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_that_is_taken_is_refused(review, server):
    with pytest.raises(InputError, match=rf"--port {server.server_port}: cannot be listened on"):
        ReviewServer(review, port=server.server_port)


def test_a_person_answers_in_a_browser(server, review, footage):
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(server.url)
        page.locator("#note:empty").wait_for(state="attached", timeout=60_000)
        assert page.locator("#where").inner_text().startswith("new one.mp4") and page.locator(
            "#choices .name"
        ).all_inner_texts() == ["run", "throw", "jump"]
        drawn = page.evaluate(
            "() => document.querySelector('canvas').getContext('2d').getImageData(0, 0, 96, 64)"
            ".data.reduce((sum, value) => sum + value, 0)"
        )
        assert drawn > 96 * 64 * 255 * 1.05, "more than black: the clip is shown"
        page.keyboard.press("Space")
        place = page.locator("#seek").input_value()
        page.keyboard.press("ArrowRight")
        assert int(page.locator("#seek").input_value()) == (int(place) + 1) % 20
        page.keyboard.press("2")  # throw
        page.locator("#where", has_text="new two.mp4").wait_for()
        page.keyboard.press("n")
        page.keyboard.type("hammer <b>throw</b>")
        page.keyboard.press("Enter")
        page.locator("#where", has_text="three.mp4").wait_for()
        assert "hammer <b>throw</b>" in page.locator("#choices .name").all_inner_texts()
        page.locator("#unusable").click()
        page.locator("#done").wait_for()
        assert "2 labelled, 1 not usable" in page.locator("#done").inner_text()
        page.keyboard.press("b")  # back to the last, to think again
        page.keyboard.press("Enter")
        page.locator("#done").wait_for()
        page.reload()
        page.locator("#done").wait_for()
        assert not problems
    assert answers(footage) == {
        "new one.mp4": "throw",
        "new two.mp4": "hammer <b>throw</b>",
        "unlabelled/three.mp4": "throw",
    }
    assert review.counts()["labelled"] == 3
