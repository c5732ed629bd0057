#!/bin/sh
# Installs the Debian packages that system tests need, where it can: as root with apt-get. Starts no service.
#
# Without arguments: the list below, and never a failure, because a test whose program is missing says so itself. With
# arguments: those packages, and a failure if they cannot be had.
set -eu

# program                     Debian package that brings it
programs='
prometheus                    prometheus
postgres                      postgresql
chromium                      chromium
'

# Debian keeps PostgreSQL's server off PATH, one folder a version.
for folder in /usr/lib/postgresql/*/bin; do
    PATH=$PATH:$folder
done

say() {
    echo "autoscaler: $*" >&2
}

if [ $# -gt 0 ]; then
    packages=$*
else
    packages=$(echo "$programs" | while read -r program package; do
        [ -z "$program" ] || command -v "$program" >/dev/null || printf '%s ' "$package"
    done)
    [ -n "$packages" ] || exit 0
fi

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    [ $# -eq 0 ] || exit 1
    say "leaving out the system tests that need ${packages% } (as root: apt-get install --no-install-recommends ${packages% })"
    exit 0
fi

# Debian asks policy-rc.d before it starts a service; 101 is its word for "do not".
policy=/usr/sbin/policy-rc.d
if ! { [ -x $policy ] && { $policy "${packages%% *}" start; [ $? -eq 101 ]; }; } 2>/dev/null; then
    [ ! -e $policy ] || mv $policy $policy.kept
    trap 'rm -f $policy; [ ! -e $policy.kept ] || mv $policy.kept $policy' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi

install() {
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
        install -y --no-install-recommends $packages >/dev/null
}

say "installing ${packages% }, once; no service is started"
install 2>/dev/null || { apt-get -qq update && install; } || {
    say "${packages% } could not be installed: see above"
    [ $# -eq 0 ] || exit 1
}
