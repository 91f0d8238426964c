import pytest


@pytest.fixture
def root(tmp_path):
    """Return a folder and a function that writes files to it. Images and videos may be empty."""

    def put(name, content=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    put.path = str(tmp_path)
    return put
