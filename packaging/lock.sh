#!/bin/sh
# Refresh the hashed locks from pyproject.toml, and that of the packages' build (needs uv on the PATH). They name no index address.
set -eu
cd "$(dirname "$0")/.."
lock() {
    in=$1; out=$2; shift 2
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-header "$@" "$in" -o "$out"
}
lock pyproject.toml requirements.lock
lock pyproject.toml requirements-dev.lock --extra dev
lock pyproject.toml requirements-fuzz.lock --extra fuzz --constraint requirements.lock
lock pyproject.toml requirements-mutants.lock --extra mutants --constraint requirements-dev.lock
lock packaging/deb/requirements.in packaging/deb/requirements.lock
