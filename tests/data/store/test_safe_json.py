"""Foreign JSON and YAML: accepted content, and content that is refused in one sentence before it costs anything."""

import json
import subprocess
import sys
from itertools import pairwise

import pytest

from posture.data.store.safe_json import MAX_DEPTH, MAX_YAML_VALUES, load_json, load_yaml
from posture.errors import InputError

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghi")
)
"""371 bytes that expand to 9 ** 9 values."""


def test_json_is_read_in_the_encodings_that_it_may_have():
    value = {"names": ["Läufer", "走る", "\U0001f3c3"], "id": 12345678901234567890, "box": [1, 2.5, -3]}
    text = json.dumps(value, ensure_ascii=False)
    assert load_json(text, "x") == value
    assert load_json(json.dumps(value), "x") == value  # escaped surrogate pairs are characters
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"):
        assert load_json(text.encode(encoding), "x") == value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"a": [1,\n 2', "labels.json line 2: not JSON"),
        (b"", "labels.json line 1: not JSON"),
        (b'{"a": "\xe4"}', "labels.json: the file is not UTF-8 text"),
        (b"[" * 100_000, "labels.json: lists and objects are nested more than 64 levels deep"),
        (b'{"a":' * 100_000, "labels.json: lists and objects are nested more than 64 levels deep"),
        (
            b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2),
            "labels.json: lists and objects are nested more than 64 levels deep",
        ),
        (b"[" + b"1" * 5000 + b"]", "labels.json: a whole number of 5,000 digits; the maximum is 40"),
        (b'["\\ud800"]', "labels.json: a text contains half of a surrogate pair"),
    ],
)
def test_json_that_is_broken_or_too_much_is_refused_in_one_sentence(content, sentence):
    with pytest.raises(InputError) as error:
        load_json(content, "labels.json")
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_json_as_deep_as_allowed_is_read():
    assert load_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x") is not None


def test_long_files_are_refused_by_their_length():
    with pytest.raises(InputError, match=r"^x: 12 bytes; the maximum is 10$"):
        load_json(b'"0123456789"', "x", max_bytes=10)


def test_yaml_values_are_texts_as_they_are_written():
    found = load_yaml(
        "names: {0: no, 1: 01, 2: 1:30}\nval:\npath: 2024-99-99\nlist: [yes, !!int x, " + "9" * 5000 + "]\n",
        "data.yaml",
    )
    assert found == {
        "names": {"0": "no", "1": "01", "2": "1:30"},
        "val": "",
        "path": "2024-99-99",
        "list": ["yes", "x", "9" * 5000],
    }


def test_yaml_anchors_are_read_as_long_as_they_stand_for_little():
    assert load_yaml("all: &names [a, b]\nnames: *names\n", "x") == {"all": ["a", "b"], "names": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BOMB, f"data.yaml: more than {MAX_YAML_VALUES:,} values"),
        ("names: &a [x, *a]\n", "data.yaml line 1: the anchor a contains itself"),
        ("names: [*b]\n", "data.yaml line 1: not YAML (found undefined alias)"),
        ("[" * 100_000, "data.yaml"),  # libyaml has a limit of its own
        ("- " * 100_000, "data.yaml: lists and objects are nested more than 64 levels deep"),
        (
            "names: [" + ",".join(f"c{number}" for number in range(200_000)) + "]",
            f"data.yaml: more than {MAX_YAML_VALUES:,} values",
        ),
        (
            "names:\n" + "".join(f"  {number}: c{number}\n" for number in range(200_000)),
            f"data.yaml: more than {MAX_YAML_VALUES:,} values",
        ),
        ("a: [1\nb: 2", "data.yaml line 2: not YAML"),
        ("? [a, b]\n: c\n", "data.yaml line 1: not YAML"),
        ("x" * (5 << 20), "data.yaml: 5,242,880 bytes; the maximum is 4,194,304"),
        ("a: \0", "data.yaml"),
        ("names: [jump]\nnc: 1\nnames: [throw]\n", "data.yaml line 3: the key 'names' appears twice; keep one of them"),
        ("names:\n  0: jump\n  1: [a, b]\n  0: throw\n", "data.yaml line 4: the key '0' appears twice"),
    ],
)
def test_yaml_that_is_broken_or_too_much_is_refused_in_one_sentence(text, sentence):
    with pytest.raises(InputError) as error:
        load_yaml(text, "data.yaml")
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_a_bomb_of_anchors_is_refused_within_a_process_of_little_memory():
    code = (
        "import resource, sys\nfrom posture.data.store.safe_json import "
        "load_yaml\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << "
        "30))\nresource.setrlimit(resource.RLIMIT_CPU, (20, 20))\ntry:\n    load_yaml(sys.stdin.read(), "
        "'x')\nexcept ValueError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=BOMB, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("x: more than")
