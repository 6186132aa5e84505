#!/usr/bin/env bash
# The GPU check on a machine that has nothing of ours: unpacks the bundle that pack.mjs made, Node with it, and starts the check.
#   bash gpu-check-bundle/run.sh [--out DIR] [--budget SECONDS] [--stage NAME]… [--filter TEXT]
# Needs bash, python3 (with PyTorch, for what we are compared with), an NVIDIA driver; nvcc and cmake where the libraries that
# travel along do not fit. Results go to --out, or $OUT, or ./gpu-check-results.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bundle=$here/tree.tar.xz
[ -e "$bundle" ] || bundle=$here/../../gpu-check-bundle/tree.tar.xz
if [ ! -e "$bundle" ]; then
  echo "gpu-check: no bundle in $here: run 'node tools/gpu-check/pack.mjs' where the packages are built, and copy gpu-check-bundle/ here" >&2
  exit 2
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/ds-gpu-check.XXXXXX")
trap 'rm -rf "$work"' EXIT
# Python's own xz: the machine may have no program of that name.
python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$bundle" "$work"
"$work/node" "$work/tools/gpu-check/main.mjs" --out "${OUT:-gpu-check-results}" "$@"
