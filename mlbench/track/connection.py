"""Where a run folder is mirrored to: the store, its experiment, and the name of the run folder in it."""

from __future__ import annotations

import json
import logging
import os
import socket
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlbench import environment
from mlbench.store import write_json
from mlbench.track import overview

REACH_SECONDS = 5.0
SETTINGS = {
    # By default MLflow asks a dead server again and again for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    # It prints the address of every run that ends, into whatever else is printed.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def default_uri(root: Path) -> str:
    """Return the sqlite store beside the run folders."""
    return f"sqlite:///{root.absolute().parent / 'mlflow.db'}"


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a sqlite store, None for any other store."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def connect(uri: str) -> Any:
    environment.prepare()
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    _reach(uri)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # they tell of every table they create
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _reach(uri: str) -> None:
    """Raise a ConnectionError where no server listens."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return
    place = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    try:
        socket.create_connection(place, timeout=REACH_SECONDS).close()
    except OSError as error:
        raise ConnectionError(f"nothing answers at {parts.scheme}://{place[0]}:{place[1]}: {error}") from error


def experiment(client: Any, name: str, uri: str, view: str) -> str:
    """Return the id of an experiment whose page can show a view, see `overview`."""
    found = client.get_experiment_by_name(name)
    made = str(found.experiment_id) if found else _create(client, name, uri)
    if not found or found.tags.get(overview.TAG) != view:
        client.set_experiment_tag(made, overview.TAG, view)
    return made


def _create(client: Any, name: str, uri: str) -> str:
    # Left alone, MLflow puts the artifacts of a sqlite store into ./mlruns of the current folder.
    file = sqlite_file(uri)
    place = (file.parent / "mlflow-artifacts" / name).as_uri() if file else None
    # Without this tag the pages of MLflow 3 open on traces of chat applications.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=place, tags=tags))


def identity(root: Path) -> str:
    """Return the name of a run folder in any store: made once, kept when the folder moves, and no path in it."""
    path = root / "tracking.json"
    if not path.is_file():
        write_json(path, {"id": uuid.uuid4().hex})
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])
