#!/bin/sh
# Makes a base image from Debian's packages, for a machine that reaches no registry: make-base.sh NAME
#
# As root, with debootstrap and buildah. The certificates this machine trusts beyond Debian's go along, or a proxy
# that signs for itself would keep pip from the package index.
set -eu

name=$1
release=${RELEASE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$release" "$work/root" "$mirror" >&2
if [ -d /usr/local/share/ca-certificates ]; then
    cp -r /usr/local/share/ca-certificates "$work/root/usr/local/share/"
    chroot "$work/root" update-ca-certificates >/dev/null
fi
rm -rf "$work/root/var/cache/apt/archives" "$work/root/var/lib/apt/lists" "$work/root/usr/share/doc"

printf 'FROM scratch\nADD root /\nCMD ["python3"]\n' >"$work/Dockerfile"
buildah build --isolation chroot --format docker --quiet --tag "$name" "$work"
