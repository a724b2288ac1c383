#!/usr/bin/env bash
# One run on a Cloud TPU: create, install, train, fetch, delete; again if preempted.
#
#   bash launch/tpu_vm.sh --name unc --zone us-east5-b --type v6e-8 --bucket BUCKET
#       [--version v2-alpha-tpuv6e] [--spot] [--dry-run] [STEP ...]
#       -- --config configs/liver_large_wcc.py [--config.field=value ...]
#
# STEPs: create install train fetch delete; without any, all of them, and after a
# preemption from the start until the run is done. Run it from the repository's root,
# logged in (gcloud auth login) and with a project set (gcloud config set project).
#
# The data set lies in gs://BUCKET/data (dataset.json, imagesTr, labelsTr) and is copied
# to each worker. The workdir is gs://BUCKET/runs/NAME, mounted by gcsfuse on all
# workers: what is saved there outlives the machines. Make the bucket with a
# hierarchical namespace, in which folders are renamed at once as on a disk:
#   gcloud storage buckets create gs://BUCKET --location=us-east5 \
#       --uniform-bucket-level-access --enable-hierarchical-namespace
# Results arrive in runs/NAME. The machines are deleted in any case; a run that ended in
# an error keeps its workdir in the bucket, and the same command goes on with it.
set -euo pipefail

fail() { echo "error: $1" >&2; exit 2; }

name="" zone="" type="" bucket="" version=v2-alpha-tpuv6e spot=() dry_run="" steps=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --name) name=${2:-}; shift 2 ;;
    --zone) zone=${2:-}; shift 2 ;;
    --type) type=${2:-}; shift 2 ;;
    --bucket) bucket=${2:-}; shift 2 ;;
    --version) version=${2:-}; shift 2 ;;
    --spot) spot=(--spot); shift ;;
    --dry-run) dry_run=yes; shift ;;
    create | install | train | fetch | delete) steps+=("$1"); shift ;;
    *) fail "stray argument $1, see the head of $0" ;;
  esac
done
for field in name zone type bucket; do
  [ -n "${!field}" ] || fail "--$field is missing, see the head of $0"
done
[[ ${2:-} == --config* ]] || fail "name the run behind --: -- --config CONFIG ..."
shift
bucket=${bucket#gs://}
POLL_S=${POLL_S:-30}
AGAIN=75

run() { # shows a command, and runs it unless this is a dry run
  local text
  printf -v text '%q ' "$@"
  echo "${text% }"
  [ -n "$dry_run" ] || "$@"
}

on_workers() { # WORKERS COMMAND
  run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

state() {
  gcloud compute tpus queued-resources describe "$name" --zone="$zone" \
    --format='value(state.state)'
}

create() {
  run gcloud compute tpus queued-resources create "$name" --node-id="$name" \
    --zone="$zone" --accelerator-type="$type" --runtime-version="$version" \
    "${spot[@]}" || return
  [ -z "$dry_run" ] || return 0
  local now
  until now=$(state) && [ "$now" = ACTIVE ]; do
    [[ $now != FAILED && $now != SUSPENDED ]] || return "$AGAIN"
    sleep "$POLL_S"
  done
}

install() {
  on_workers all 'mkdir -p unc' || return
  run gcloud compute tpus tpu-vm scp --recurse --worker=all --zone="$zone" \
    unc_jax configs launch pyproject.toml requirements.txt README.md LICENSE \
    "$name:unc/" || return
  # The image's own Python is older than 3.11.
  on_workers all 'set -e; cd unc; python3 -m pip install --quiet --user uv
~/.local/bin/uv venv --quiet --clear --python 3.12 ~/venv
~/.local/bin/uv pip install --quiet --python ~/venv -r requirements.txt ".[tpu]"' ||
    return
  # shellcheck disable=SC2016  # for the workers to expand
  on_workers all 'set -e; command -v gcsfuse > /dev/null || {
. /etc/os-release; keys=/usr/share/keyrings/cloud.google.asc
curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee $keys > /dev/null
echo "deb [signed-by=$keys] https://packages.cloud.google.com/apt gcsfuse-$VERSION_CODENAME main" |
sudo tee /etc/apt/sources.list.d/gcsfuse.list
sudo apt-get -qq update; sudo apt-get -qq install -y gcsfuse; }'
}

train() {
  # No cached names: the workers must see each other's files.
  local mount="mountpoint -q ~/bucket ||"
  mount+=" gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 $bucket ~/bucket"
  local flags
  printf -v flags ' %q' "$@"
  on_workers all "set -e; rm -f exit_code; mkdir -p bucket data; $mount
gcloud storage rsync --recursive gs://$bucket/data data
mkdir -p ~/bucket/runs; cd unc; code=0
~/venv/bin/python -m unc_jax.main --distributed --workdir ~/bucket/runs/$name \
--config.data.root=\$HOME/data --config.data.prepared=\$HOME/bucket/prepared$flags || code=\$?
echo \$code > ~/exit_code"
}

fetch() {
  run mkdir -p "runs/$name" || return
  run gcloud storage rsync --recursive "gs://$bucket/runs/$name" "runs/$name"
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" --zone="$zone" --force --quiet
}

exit_code() { # of the run; `gone` when the machine cannot say
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=0 \
    --command='cat exit_code' 2> /dev/null || echo gone
}

once() { # returns the run's exit code, or AGAIN when the machine was taken away
  create || return
  local code=gone
  if install && train "$@" && [ -z "$dry_run" ]; then code=$(exit_code); fi
  [ -z "$dry_run" ] || return 0
  case $code in
    0 | 2 | 3) return "$code" ;;
    130 | 143) return "$AGAIN" ;;
  esac
  sleep "$POLL_S" # until a preemption shows
  [ "$(state)" = ACTIVE ] || return "$AGAIN"
  [ "$code" != gone ] || code=1
  return "$code"
}

if [ ${#steps[@]} -gt 0 ]; then
  for step in "${steps[@]}"; do "$step" "$@"; done
  exit
fi
[ -z "$dry_run" ] || echo "# from here on again whenever the machine is taken away:"
while true; do
  code=0
  once "$@" || code=$?
  [ "$code" -eq "$AGAIN" ] || break
  echo "# preempted: from the start, the run goes on where it was saved"
  delete || true
  sleep "$POLL_S"
done
[ -z "$dry_run" ] || echo "# when the run has ended:"
fetch || echo "error: not fetched; the results are in gs://$bucket/runs/$name" >&2
delete
[ "$code" -eq 0 ] || echo "error: the run ended with exit code $code" >&2
exit "$code"
