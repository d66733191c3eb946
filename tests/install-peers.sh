#!/bin/sh
# Installs the real peers that tests marked `peers` talk to, from Debian's packages, where this user may. Where not, it says
# what is left out and succeeds; under CI=true such a test then fails instead of being left out.
set -eu

PACKAGES="dcmtk orthanc orthanc-dicomweb libgdcm-tools strace"
PATH="$PATH:/usr/sbin:/sbin"

missing=""
for program in storescp dcmqrscp Orthanc gdcmconv strace; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing="$missing libOrthancDicomWeb.so"
[ -n "$missing" ] || exit 0

leave_out() {
    echo "Not installed:$missing ($1)." >&2
    echo "Tests with real peers that need them are left out; 'apt-get install $PACKAGES' makes them run." >&2
    exit 0
}

command -v apt-get >/dev/null || leave_out "no apt-get here"
if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    leave_out "neither root nor sudo without a password"
fi

# Debian starts a service when its package is installed; the tests run their own Orthancs and need the ports.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
    trap '$as_root rm -f "$policy"' EXIT
fi
had_orthanc=$(command -v Orthanc || true)
# shellcheck disable=SC2086
{ $as_root apt-get -qq update && $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends $PACKAGES; } \
    || leave_out "apt-get could not install them"
[ -n "$had_orthanc" ] || $as_root update-rc.d orthanc disable >/dev/null 2>&1 || true
