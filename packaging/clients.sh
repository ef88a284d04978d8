#!/bin/bash
# Build the clients that Debian 12 does not have, for the tests that pull with them: containerd 2 and
# oras, from the Go module proxy into build/clients/. Takes some minutes; the second run none.
set -euo pipefail
cd "$(dirname "$0")/.."

CONTAINERD=v2.4.2
ORAS=v1.3.6

die() { printf 'clients: %s\n' "$*" >&2; exit 1; }

command -v go >/dev/null || die "no Go: install Go 1.26 or newer, then run make clients again"
export GOBIN=$PWD/build/clients CGO_ENABLED=0 GOFLAGS=-buildvcs=false
for tool in "github.com/containerd/containerd/v2/cmd/containerd@$CONTAINERD" \
    "github.com/containerd/containerd/v2/cmd/ctr@$CONTAINERD" "oras.land/oras/cmd/oras@$ORAS"; do
    built=$GOBIN/$(basename "${tool%@*}")
    [ "$(go version -m "$built" 2>/dev/null | awk '$1 == "mod" { print $3 }')" = "${tool#*@}" ] && continue
    printf 'building %s\n' "$tool" >&2
    go install -trimpath "$tool" || die "could not build $tool"
done
"$GOBIN/containerd" --version
"$GOBIN/oras" version | head -1
