#!/bin/bash
# root.sh ARCH TARGET: make a minimal Debian of this machine's release to try the packages in, once.
# For another architecture it is unpacked only: nothing of it can be run to configure it.
set -euo pipefail

arch=$1 target=$2
[ -e "$target" ] && exit
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(SITE)' 'Identifier: Packages' 'Component: main' "Codename: $suite" | head -n 1)
[ -n "$mirror" ] || { echo "root.sh: apt knows no mirror of $suite: run apt-get update" >&2; exit 1; }
partial=$target.partial packages=systemd,systemd-sysv,dbus,python3,adduser,ca-certificates,iproute2,procps
mkdir -p "$(dirname "$target")"
rm -rf "$partial"
if [ "$arch" = "$(dpkg --print-architecture)" ]; then
    debootstrap --variant=minbase --include="$packages" "$suite" "$partial" "$mirror" >&2
    rm -rf "$partial"/var/cache/apt/archives/*.deb "$partial"/var/lib/apt/lists/*
else
    debootstrap --foreign --arch="$arch" --variant=minbase --include=python3,ca-certificates "$suite" "$partial" "$mirror" >&2
    for package in "$partial"/var/cache/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$partial"
        rm "$package"
    done
fi
mv "$partial" "$target"
