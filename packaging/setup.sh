#!/bin/bash
# Make a checkout ready to test and demo: Debian packages, then a virtual environment from the
# hashed lock. Idempotent; the second run takes a moment. `setup.sh --python-only` skips apt.
set -euo pipefail
cd "$(dirname "$0")/.."

DEBIAN_PACKAGES=(containerd docker-registry faketime iproute2 podman python3 python3-venv skopeo ca-certificates curl openssl
    binutils binutils-aarch64-linux-gnu lintian man-db debootstrap systemd-container qemu-user-static prometheus)

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

install_debian_packages() {
    command -v dpkg-query >/dev/null || die "this is not Debian: install ${DEBIAN_PACKAGES[*]} by hand, then run packaging/setup.sh --python-only"
    local missing=() package
    for package in "${DEBIAN_PACKAGES[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" = 0 ] || die "not root: run 'apt-get install ${missing[*]}' as root, or this script"
    say "installing Debian packages: ${missing[*]}"
    # A policy that starts nothing: the testbed runs its own containerd and registry.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made=1
    fi
    trap '[ -z "${made:-}" ] || rm -f /usr/sbin/policy-rc.d' EXIT
    DEBIAN_FRONTEND=noninteractive apt-get update -qq || die "apt-get update failed: is a Debian mirror reachable?"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install ${missing[*]}"
    [ -z "$made" ] || rm -f "$policy"
    trap - EXIT
}

find_python() {
    local python
    for python in "${PYTHON:-}" /usr/bin/python3 python3; do
        [ -n "$python" ] && "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
            { echo "$python"; return; }
    done
    die "no Python 3.11 or newer with venv: apt-get install python3 python3-venv, or set PYTHON"
}

install_python_packages() {
    local wanted
    wanted=$(cat requirements-dev.lock pyproject.toml | sha256sum)
    [ "$(cat .venv/.installed 2>/dev/null)" = "$wanted" ] && return
    local python
    python=$(find_python)
    say "making .venv with $python from requirements-dev.lock"
    "$python" -m venv --clear .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock ||
        die "pip could not install requirements-dev.lock: is a Python package index reachable?"
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    printf '%s\n' "$wanted" >.venv/.installed
}

[ "${1:-}" = --python-only ] || install_debian_packages
install_python_packages
say "ready"
