"""When a run folder is mirrored to MLflow, where to, and what is said when that fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbench import environment, reporting
from mlbench.store import Store, write_json

if TYPE_CHECKING:
    from mlbench.results import Results


def address(root: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the tracking URI that a shootout asks for, None where it asks for none."""
    from mlbench import track

    return (settings["uri"] or track.default_uri(root)) if settings["enabled"] else None


def update(
    store: Store, data: Mapping[str, Any], results: Results | None, written: Mapping[str, Path], uri: str = ""
) -> bool:
    """Mirror to MLflow, unless nothing changed since it was mirrored there, and say whether MLflow is up to date."""
    from mlbench import track

    marker = store.root / "tracked.json"
    uri = uri or data["tracking"]["uri"] or track.default_uri(store.root)
    ends = {key: status.state for key in data["jobs"] if (status := store.status(key))}
    now = {"uri": uri, "ends": ends, "design": [data["baseline"], data["statistics"]]}
    file = track.sqlite_file(uri)
    gone = file is not None and not file.exists()
    if not gone and marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == now:
        return True
    try:
        track.mirror(store.root, results, written, uri=uri)
    except Exception as error:  # the mirror is never the source of truth: its failure must not cost the report
        print(f"warning: MLflow could not be written: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"nothing is lost; to send all: mlbench track {environment.shown(store.root)}", file=sys.stderr)
        return False
    write_json(marker, now)
    return True


def send(root: Path, uri: str = "") -> bool:
    """Mirror a run folder to MLflow, whatever was mirrored before, and say whether that worked.

    Args:
        root: The run folder.
        uri: Where to; "" is what the shootout names, or the sqlite store beside the run folder.

    Raises:
        UserError: The folder holds no plan.
    """
    from mlbench.results import frames

    environment.prepare()
    data = frames.marked(frames.read_plan(root))
    written, results = reporting.write_report(root)
    (root / "tracked.json").unlink(missing_ok=True)
    return update(Store(root), data, results, written, uri)


def serve(root: Path | None, port: int = 0) -> None:
    """Show the MLflow store of a run folder, or of reports/, in MLflow's own pages until somebody ends it.

    Raises:
        UserError: There is no such store, or its pages cannot be served.
    """
    from mlbench import track
    from mlbench.results import frames

    environment.prepare()
    data = frames.read_plan(root) if root else {}
    uri = data["tracking"]["uri"] if data else ""
    track.serve(uri or track.default_uri(root or Path("reports") / "any"), port, experiment=data.get("name", ""))
