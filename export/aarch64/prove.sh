#!/usr/bin/env bash
# The runtime's own tests in an arm64 Debian, under emulation, on an x86-64 Debian or Ubuntu. See docs/aarch64.md.
#
#   sudo export/aarch64/prove.sh [--work FOLDER] [--timeout SECONDS] [-- pytest arguments]
#
# Nothing is installed on this machine and nothing of the kernel is changed: the tools are unpacked into the work
# folder, and mounts are made in a mount namespace of this script, which ends with it, however it ends.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$repo/build/aarch64
python=${PYTHON:-python3}
# Debian's packages come from where this machine has its own; on Ubuntu name a Debian mirror.
mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | awk '!/security/ && !seen++')}
cpu=neoverse-n1  # with QEMU's default processor OpenVINO computes something else, without a word
timeout=600      # seconds for one test; emulation is about 100 times slower

# What is run where nothing else is asked for: graphs, golden vectors, ranking, store, history, decoding. Left out: what
# needs the workstation half (it skips itself), measures time, or renders and decodes more than emulation has time for.
mapfile -t tests <"$repo/tests/runtime.txt"

fail() { echo "prove.sh: $*" >&2; exit 2; }
say() { echo "== $*"; }

while (($#)); do
  case $1 in
    --work) work=$(realpath -m "${2:?--work needs a folder}"); shift 2 ;;
    --timeout) timeout=${2:?--timeout needs seconds}; shift 2 ;;
    --) shift; (($#)) && tests=("$@"); break ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown argument $1: expected --work, --timeout or -- and arguments of pytest" ;;
  esac
done

[[ $(uname -sm) == "Linux x86_64" ]] || fail "expected Linux on x86-64; on an ARM machine run \`make test\` itself"
((EUID == 0)) || fail "chroot and mount need root: sudo $0"
for tool in apt-get dpkg-deb unshare chroot git; do
  command -v "$tool" >/dev/null || fail "no $tool here: expected Debian or Ubuntu with git"
done
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$python is too old: PYTHON=python3.11 $0"

host=$work/host root=$work/root
mkdir -p "$work"

if [[ ! -e $host/done ]]; then
  say "emulator"
  rm -rf "$host" && mkdir -p "$host"
  (cd "$host" && apt-get -o APT::Sandbox::User=root download -q qemu-user-static debootstrap busybox-static)
  for deb in "$host"/*.deb; do dpkg-deb -x "$deb" "$host"; done
  touch "$host/done"
fi

if [[ ! -e $root/done ]]; then
  say "arm64 Debian bookworm"
  rm -rf "$root"
  DEBOOTSTRAP_DIR=$host/usr/share/debootstrap "$host/usr/sbin/debootstrap" --arch=arm64 --foreign --variant=minbase \
    --include=python3 bookworm "$root" "$mirror" >"$work/debootstrap.log" || fail "see $work/debootstrap.log"
  # In place of the second stage, whose scripts would run for long under emulation: Python needs none of them.
  for deb in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$deb" "$root"; done
  rm -rf "$root"/var/cache/apt/archives/*.deb
  # Tests start Python again. Without binfmt_misc (a setting of the whole kernel, which is not ours to make) only
  # programs of this machine can be started, so Python's place is taken by a script for a shell of this machine.
  install -D "$host/usr/bin/qemu-aarch64-static" "$root/host/qemu"
  install -D "$host/bin/busybox" "$root/host/busybox"
  mv "$root/usr/bin/python3.11" "$root/usr/bin/python3.11.arm64"
  # shellcheck disable=SC2016  # written as they are
  printf '#!/host/busybox sh\nexec /host/qemu -cpu %s -0 "$0" /usr/bin/python3.11.arm64 "$@"\n' "$cpu" \
    >"$root/usr/bin/python3.11"
  chmod +x "$root/usr/bin/python3.11"
  cp "$repo/export/aarch64/cpuinfo" "$root/host/cpuinfo"
  touch "$root/done"
fi

say "the package and its tests"
rm -rf "$root/src" "$root/site" "$work/dist" && mkdir -p "$root/src" "$work/dist"
(cd "$repo" && git -c safe.directory="$repo" ls-files -z | tar --null -T - -c) | tar -x --no-same-owner -C "$root/src"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Without the kernel, which would be compiled for this processor; NumPy scores to the same bits.
LINKEDOUT_PURE=1 "$python" -m pip wheel --quiet --no-deps -w "$work/dist" "$root/src"
rm -rf "$root/src/build" "$root"/src/*.egg-info
platforms=()
for glibc in 2_35 2_34 2_31 2_28 2_27 2_26 2_17; do platforms+=(--platform "manylinux_${glibc}_aarch64"); done
"$python" -m pip install --quiet --no-warn-conflicts --target "$root/site" --only-binary=:all: \
  --implementation cp --python-version 3.11 "${platforms[@]}" --platform manylinux2014_aarch64 \
  "$(echo "$work"/dist/*.whl)[openvino,encryption]" "pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.100" "psutil>=5.9"

# The tests' tiny bundle is made with torch, which has no place in there.
if [[ ! -e $work/tiny/manifest.json ]]; then
  say "tiny bundle"
  PYTHONPATH=$repo:$repo/quant:$repo/export "$python" -c \
    'import sys, pathlib, linkedout_export.tiny as t; t.write_tiny_bundle(pathlib.Path(sys.argv[1]))' "$work/tiny" \
    || fail "no tiny bundle: run with the Python that has the workstation half (PYTHON=.venv/bin/python $0)"
fi
rm -rf "$root/tiny" && cp -r "$work/tiny" "$root/tiny"
rm -rf "$root/home/tester" && mkdir -p "$root/home/tester"
chown -R 1000:1000 "$root/home/tester" "$root/src"

say "tests"
inside() {
  mount -t proc proc "$1/proc"
  mount --bind "$1/host/cpuinfo" "$1/proc/cpuinfo"  # libraries read there what an ARM processor can do
  mount --rbind /sys "$1/sys"
  mount --rbind /dev "$1/dev"
  mount -t tmpfs tmpfs "$1/tmp"
  exec chroot --userspec=1000:1000 "$@"
}
export -f inside
# In place of this script, so that what ends it ends the tests and their mounts too.
# shellcheck disable=SC2016  # expanded by the inner shell
exec unshare --mount --pid --fork --kill-child --propagation private bash -euc 'inside "$@"' bash "$root" \
  /host/busybox env -i HOME=/home/tester PATH=/usr/bin:/bin LANG=C.UTF-8 PYTHONPATH=/site PYTHONDONTWRITEBYTECODE=1 \
  LINKEDOUT_TINY_BUNDLE=/tiny \
  /host/busybox sh -c 'cd /src && exec /usr/bin/python3.11 -P -m pytest -p no:cacheprovider "$@"' sh \
  -m "not slow" --timeout "$timeout" --durations 15 "${tests[@]}"
