#!/usr/bin/env bash
# Check and measure everything on a machine with one GPU: see --help and docs/gpu/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m scripts.gpu_report "$@"
