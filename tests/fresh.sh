#!/bin/sh
# fresh.sh [COMMAND]: a new Debian 12 in a temporary folder, a clone of this
# tree in it, and README's two commands as written (or only COMMAND). Root.
# Leaves the folder there if something fails.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd -P)

[ "$(id -u)" -eq 0 ] || { echo "fresh.sh: as root, please" >&2; exit 1; }
command -v debootstrap >/dev/null ||
    { echo "fresh.sh: apt-get install debootstrap" >&2; exit 1; }

# The mirror that this machine uses.
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] *\)\{0,1\}\([^ ]*\) .*/\2/p' |
    grep -m 1 'debian/*$')

root=$(mktemp -d /tmp/sluice-fresh-XXXXXX)
chmod 755 "$root"
debootstrap --variant=minbase bookworm "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail "$root.log"; exit 1; }
cp /etc/resolv.conf "$root/etc/resolv.conf"
# A certificate authority of this site, for the package registries.
if [ -n "$(ls /usr/local/share/ca-certificates 2>/dev/null)" ]; then
    mkdir -p "$root/usr/local/share"
    cp -r /usr/local/share/ca-certificates "$root/usr/local/share/"
fi
git clone -q --no-hardlinks "$top" "$root/root/sluice"

# In namespaces of its own, so that nothing of it is left running.
cat >"$root/root/fresh-script" <<'EOF'
set -eu
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null || true
mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LC_ALL=C.UTF-8
cd /root/sluice
if [ $# -gt 0 ]; then
    exec "$@"
fi
setsid ./quickstart >/root/quickstart.log 2>&1 &
quickstart=$!
until grep -q 'Ctrl-C stops it' /root/quickstart.log; do
    kill -0 $quickstart || { cat /root/quickstart.log; exit 1; }
    sleep 1
done
cat /root/quickstart.log
kill -TERM $quickstart
wait $quickstart
./check
EOF
unshare --mount --pid --fork --kill-child \
    chroot "$root" /bin/sh /root/fresh-script "$@"
rm -rf "$root" "$root.log"
