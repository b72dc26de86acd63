#!/usr/bin/env bash
# Check and measure everything on a machine with one GPU: see --help and docs/gpu/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-}
if [[ -z $python ]]; then
    if [[ -x .venv/bin/python ]]; then python=.venv/bin/python; else python=python3; fi
fi
exec "$python" -m scripts.gpu_report "$@"
