"""W&B online with a key, and a server that does not serve: the training is recorded offline."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb

from xlstm_rl.runs.loggers import LoggerConfig, make_logger
from xlstm_rl.runs.loggers.wandb_logger import ID_FILE


class Refuses(BaseHTTPRequestHandler):
    """Answers every request that this key may not do it."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        answer = b'{"errors": [{"message": "who are you?"}]}'
        self.send_response(401)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def refusing_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    wandb.teardown()
    yield
    monkeypatch.undo()
    wandb.teardown()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("refusing_server")
def test_a_server_that_refuses_the_key_costs_one_line_and_the_same_run_is_recorded_offline(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ID_FILE).parent.mkdir()
    (tmp_path / ID_FILE).write_text("abcd1234\n")
    with make_logger(LoggerConfig("wandb"), tmp_path, {}) as ours:
        ours.log(16, {"x": 1.0})
    lines = [line for line in capfd.readouterr().err.splitlines() if "offline" in line]
    assert len(lines) == 1
    assert "401" in lines[0] and "recording offline; `wandb sync" in lines[0]
    assert list(tmp_path.glob("wandb/offline-run-*-abcd1234/*.wandb"))


@pytest.mark.usefixtures("refusing_server")
def test_beside_another_open_run_it_is_recorded_under_another_id(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    with (
        make_logger(LoggerConfig("wandb"), folders[0], {}) as one,
        make_logger(LoggerConfig("wandb"), folders[1], {}) as other,
    ):
        for step in (16, 32):
            one.log(step, {"x": 1.0})
            other.log(step, {"x": 2.0})
    ids = {(folder / ID_FILE).read_text() for folder in folders}
    assert len(ids) == 2
    for folder in folders:
        assert len(list(folder.glob("wandb/offline-run-*/*.wandb"))) == 1
