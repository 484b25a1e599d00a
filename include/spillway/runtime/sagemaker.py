"""`python -m spillway.runtime.sagemaker`: the runtime in a SageMaker training job, which has its own places for what to do.

Source: Amazon SageMaker AI, "How Amazon SageMaker Provides Training Information" and "How Amazon SageMaker Signals Algorithm Success and
Failure", docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html and
docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-signal-success-failure.html.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER_VARIABLE: Final = "SPILLWAY_SAGEMAKER_FOLDER"
PART: Final = "spillway_submission_"
"""Hyperparameters named so, in order, are the submission; each may have 2,500 characters."""


def environment_of(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with what SageMaker keeps in files: the submission, and who is in the gang."""
    config = folder / "input" / "config"
    hyperparameters: dict[str, str] = _read(config / "hyperparameters.json")
    parts = [hyperparameters[name] for name in sorted(hyperparameters) if name.startswith(PART)]
    machines = _read(config / "resourceconfig.json")
    told = {
        "SPILLWAY_SUBMISSION": "".join(parts),
        "SM_HOSTS": json.dumps(machines["hosts"]),
        "SM_CURRENT_HOST": machines["current_host"],
    }
    return {**environment, **told}


def run_in(folder: Path) -> int:
    """Run the submission, leave word of a failure where SageMaker looks for it, and return the exit code."""
    from spillway.runtime.__main__ import main  # the backend imports this module, and runs nothing

    os.environ.update(
        environment_of(folder, os.environ)
    )  # what the entry point starts needs it, too
    code = main([], os.environ)
    if code != 0:
        output = folder / "output"
        output.mkdir(parents=True, exist_ok=True)
        (output / "failure").write_text(f"spillway: exit code: {code}", encoding="utf-8")
    return code


def _read(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(run_in(Path(os.environ.get(FOLDER_VARIABLE, "/opt/ml"))))
