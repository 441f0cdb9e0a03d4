"""`dualtoken serve` and `dualtoken demo`: what they refuse to start with, and whom they answer."""

import socket

import pytest
from starlette.testclient import TestClient

import dualtoken
from serve.app import Api
from serve.extras import require
from serve.metrics import Metrics
from serve.server import hosts_allowed, listen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--token-file", "none.txt"], "none.txt does not exist"),
        (["--token-file", "short.txt"], "at least 8 plain characters"),
        (["--image-folder", "none"], "none is no folder"),
        (["--batch", "0"], "must be above 0"),
        (["--timeout", "nan"], "limit seconds=nan must be above 0"),
        (["--port", "70000"], "cannot listen at 127.0.0.1, port 70000"),
        (["--host", "256.0.0.1"], "cannot listen at 256.0.0.1"),
        (["--port", "0", "--model", "none"], "none is no exported model"),
    ],
)
def test_mistakes_are_known_before_a_model_is_loaded(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("sesame")
    assert dualtoken.main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dualtoken: error: ") and error.count("\n") == 1 and said in error


def test_a_port_in_use_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert dualtoken.main(["serve", "--port", str(port)]) == 2
        assert f"port {port}" in capsys.readouterr().err
        with pytest.raises(ValueError, match="choose another --port"):
            listen("127.0.0.1", port)


def test_what_is_not_installed_is_named():
    require("serve", "starlette")
    with pytest.raises(ValueError, match=r"this needs no_such_module: pip install 'dualtoken\[demo\]'"):
        require("demo", "starlette", "no_such_module")


def test_on_loopback_only_names_of_this_machine_are_answered(make_engine):
    """A page elsewhere may rebind its own name to 127.0.0.1."""

    def status(app_host: str, url: str) -> int:
        app = Api(make_engine(), Metrics()).app(hosts_allowed(app_host))
        return TestClient(app, base_url=url).get("/health").status_code

    assert status("127.0.0.1", "http://evil.example") == 400
    assert [status("127.0.0.1", f"http://{name}:8000") for name in ("127.0.0.1", "localhost", "[::1]")] == [200] * 3
    assert status("0.0.0.0", "http://my-machine.example") == 200
