"""Mirror a run folder to MLflow: a parent run per shootout, a child per checkpoint (method, model and seed).

Written by the driver only and never read back as truth. Mirroring twice changes nothing: runs are found again by the
tags that name their run folder and their checkpoint, and a value is logged only where it differs. `mlflow` is imported
only here.
"""

from mlbench.track.connection import default_uri, sqlite_file
from mlbench.track.mirror import Live, mirror
from mlbench.track.pages import serve

__all__ = ["Live", "default_uri", "mirror", "serve", "sqlite_file"]
