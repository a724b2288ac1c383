#!/usr/bin/env bash
# The study: six models, of several --seeds their ensembles too, then both tables, both
# figures and all statistics.
#   bash launch/study.sh [DATA_ROOT] [--organ liver|hippocampus|liver_mr] [--seeds 0 1 2] [--livers DIR] [--runs DIR] [--output DIR]
# Without DATA_ROOT on a reduced synthetic cohort. Run it again after any interruption:
# finished work is kept. `python launch/commands.py` prints the lines it runs.
set -euo pipefail
# Read before environment.sh goes to the repository, so that a relative path holds.
arguments=("$@")
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  if [ ! -d "$1" ]; then
    echo "error: no data at $1: name the folder of Task03_Liver, or nothing" >&2
    exit 2
  fi
  arguments[0]=$(cd "$1" && pwd)
fi
for i in "${!arguments[@]}"; do
  [ "$i" -gt 0 ] || continue
  case "${arguments[i - 1]}" in
    --livers) arguments[i]=$(realpath "${arguments[i]}") ;;
    --runs | --output) arguments[i]=$(realpath -m "${arguments[i]}") ;;
  esac
done
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

install requirements.txt
lines=$("$VENV/bin/python" launch/commands.py "${arguments[@]}" \
  --python "$VENV/bin/python" --stage all)
count=$(wc -l <<< "$lines")
number=0
while IFS= read -r line; do
  number=$((number + 1))
  echo "[$number/$count] $line"
  bash -c "$line" < /dev/null
done <<< "$lines"
