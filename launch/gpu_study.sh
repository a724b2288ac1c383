#!/usr/bin/env bash
# The study at the paper's size on synthetic scans, in slices for a machine that is lent.
#   bash launch/gpu_study.sh --seconds 540 --output FOLDER [--archive OLD.tar.xz]
#       [--work DIR] [--cases 131] [--max-mb 15] [--toy]
# Ends before so many seconds are over. FOLDER/study.tar.xz then holds the finished
# models; given as --archive to the next call, on any machine, that goes on behind them.
# PYTHON names a Python with everything installed; else launch/environment.sh makes one.
set -euo pipefail
from=$PWD
installed=${PYTHON:-}
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

root=$PWD
if [ -z "$installed" ]; then
  install requirements.txt
  PYTHON=$(realpath -s "$VENV/bin/python")
fi
cd "$from"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$PYTHON" -m launch.gpu_study "$@"
