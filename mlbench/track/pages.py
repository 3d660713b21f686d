"""MLflow's own pages for a store, on this machine only, until somebody ends them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from types import FrameType

from mlbench.errors import UserError
from mlbench.track import overview
from mlbench.track.connection import connect, sqlite_file

HOST = "127.0.0.1"
START_SECONDS = 90.0
END_SECONDS = 5.0


def serve(uri: str, port: int = 0, tell: Callable[[str], None] = print, experiment: str = "") -> None:
    """Serve the pages of a store until interrupted; `tell` gets the address. A server has pages of its own already.

    Args:
        uri: The tracking URI of the store.
        port: 0 takes a free one.
        experiment: The name of the experiment whose page is told; "" or one that is not there: the first page.

    Raises:
        UserError: The store is not there, the port is taken, or MLflow did not start.
    """
    if uri.startswith(("http://", "https://")):
        tell(f"this run is mirrored to a server with pages of its own: {uri}")
        return
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        raise UserError(f"there is no MLflow store {str(file)!r} yet", hint="mlbench track RUN writes one")
    port = _free(port)
    found = connect(uri).get_experiment_by_name(experiment) if experiment else None
    page = f"/{overview.address(found.experiment_id)}" if found else ""
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal must not leave the server behind
        signal.signal(number, _interrupt)
    with tempfile.TemporaryFile() as log:
        words = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", HOST, "--port", str(port)]
        quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # queues of their own, of no use here
        process = subprocess.Popen(
            [*words, "--workers", "1"], env=quiet, stdout=log, stderr=log, start_new_session=True
        )
        try:
            if not _answers(process, port):
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines()
                raise UserError(f"MLflow did not start: {' '.join(lines[-3:])}")
            tell(f"MLflow: http://{HOST}:{port}{page}  (Ctrl-C ends it)")
            process.wait()
        except KeyboardInterrupt:
            return
        finally:
            _end(process)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            message = f"port {port} cannot be used: {error.strerror}"
            raise UserError(message, hint="without --port a free one is taken") from error
        return int(probe.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5).close()
        except OSError:  # urllib's errors are such: it is not there yet
            time.sleep(0.2)
        else:
            return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and every process that it started; they share a group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(END_SECONDS)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()
