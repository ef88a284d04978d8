#!/bin/sh
# Refresh the hashed locks from pyproject.toml (needs uv on the PATH). They name no index address.
set -eu
cd "$(dirname "$0")/.."
lock() {
    out=$1; shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-header "$@" pyproject.toml -o "$out"
}
lock requirements.lock
lock requirements-dev.lock --extra dev
