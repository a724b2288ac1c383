#!/usr/bin/env bash
# Starts a run on GPUs of a Kubernetes cluster (GKE): fills in and applies gke_job.yaml.
#
#   bash launch/gke.sh --image IMAGE --claim CLAIM [--name unc-jax] [--gpu nvidia-l4]
#       [--gpus 1] [--processes 1] [--on-demand] [--dry-run]
#       -- --config configs/liver_large_wcc.py --workdir /work/runs/liver
#       --config.data.root=/work/Task03_Liver --config.data.prepared=/work/prepared
#
# IMAGE is built from launch/Dockerfile; CLAIM is a PersistentVolumeClaim, mounted at
# /work, that holds the data and takes the results: for several processes one that many
# nodes may write (Filestore). --gpus counts those of each process, --dry-run prints
# the manifest that would be applied. Spot machines unless --on-demand. Then:
#   kubectl logs -f job/NAME            and    kubectl delete job/NAME service/NAME
set -euo pipefail

fail() { echo "error: $1, see the head of $0" >&2; exit 2; }

image="" claim="" name=unc-jax gpu=nvidia-l4 gpus=1 processes=1 spot=true dry_run=""
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --image) image=${2:-}; shift 2 ;;
    --claim) claim=${2:-}; shift 2 ;;
    --name) name=${2:-}; shift 2 ;;
    --gpu) gpu=${2:-}; shift 2 ;;
    --gpus) gpus=${2:-}; shift 2 ;;
    --processes) processes=${2:-}; shift 2 ;;
    --on-demand) spot=false; shift ;;
    --dry-run) dry_run=yes; shift ;;
    *) fail "stray argument $1" ;;
  esac
done
[ -n "$image" ] || fail "--image is missing"
[ -n "$claim" ] || fail "--claim is missing"
[[ ${2:-} == --config* ]] || fail "name the run behind --: -- --config CONFIG ..."
shift

arguments=""
for word in "$@"; do # as JSON, which YAML contains
  word=${word//\\/\\\\}
  arguments+="${arguments:+, }\"${word//\"/\\\"}\""
done
manifest=$(cat "$(dirname "${BASH_SOURCE[0]}")/gke_job.yaml")
manifest=${manifest//@IMAGE@/"$image"}
manifest=${manifest//@CLAIM@/"$claim"}
manifest=${manifest//@NAME@/"$name"}
manifest=${manifest//@GPU@/"$gpu"}
manifest=${manifest//@GPUS@/"$gpus"}
manifest=${manifest//@PROCESSES@/"$processes"}
manifest=${manifest//@ARGUMENTS@/"[$arguments]"}
if [ "$spot" = true ]; then
  manifest=${manifest//@SPOT@/true}
else # a node that is not spot lacks the label
  manifest=$(grep -v @SPOT@ <<< "$manifest")
fi

if [ -n "$dry_run" ]; then
  echo "# kubectl apply -f - with:"
  echo "$manifest"
else
  kubectl apply -f - <<< "$manifest"
fi
