#!/usr/bin/env bash
# Write .ci/lock.txt anew, keeping what is pinned there unless called with --upgrade. CUDA packages are left out: torch brings the ones its own build needs, a CPU build none.
set -euo pipefail
cd "$(dirname "$0")/.."
cp .ci/lock.txt .ci/lock.new
.venv/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
  --no-emit-find-links --no-emit-index-url --no-header --no-annotate --quiet --output-file .ci/lock.new --no-config "$@"
grep -vE '^(nvidia-|cuda-|triton==)' .ci/lock.new >.ci/lock.txt
rm .ci/lock.new
# SkyPilot's API server has an environment of its own.
.venv/bin/uv pip compile .ci/skypilot/requirements.in --universal --python-version 3.11 \
  --no-emit-find-links --no-emit-index-url --no-header --no-annotate --quiet --output-file .ci/skypilot/lock.txt --no-config "$@"
