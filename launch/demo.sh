#!/usr/bin/env bash
# From nothing to a table row: environment, synthetic cohort, training, evaluation.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

start=$SECONDS
install requirements.txt
"$VENV/bin/python" -m unc_jax.main --config configs/demo.py "$@"

cat <<END

Done in $(((SECONDS - start) / 60)) min $(((SECONDS - start) % 60)) s. Look at:
  runs/demo/figures/figure1.png   best, median and worst test case, with uncertainty
  runs/demo/figures/figure2.png   Dice against the three uncertainty measures
  runs/demo/progress.png          training curves
  runs/demo/cases.csv             every case: Dice, measures, volumes
  runs/demo/report.html           all of it on one page

Next, on scans of your own (NIfTI or DICOM): masks, and which of them to review:
  $VENV/bin/python -m unc_jax.predict --run runs/demo --input FOLDER --output out

On the real data (Medical Segmentation Decathlon, Task03_Liver):
  $VENV/bin/python -m unc_jax.main --config configs/liver_large_wcc.py \\
      --config.data.root=/path/to/Task03_Liver
END

# Another --workdir has none.
if [ -f runs/demo/review.json ]; then
  echo
  echo "What this run showed, on scans that its network had not seen:"
  "$VENV/bin/python" -c 'import json; print(" ", json.load(open("runs/demo/review.json"))["flags"])'
fi
