#!/usr/bin/env bash
# Installs what the tests need, then lint, types and tests. Arguments go to pytest.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

install requirements.txt tests/requirements.txt
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/pyright" --pythonpath "$VENV/bin/python"
"$VENV/bin/python" -m pytest -q -n 2 --dist worksteal "$@"
