import pytest


@pytest.fixture
def root(tmp_path):
    """A folder and a way to put text or bytes in it; reading labels looks at no pixels, so an empty file is an image
    too.
    """

    def put(name, content=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    put.path = str(tmp_path)
    return put
