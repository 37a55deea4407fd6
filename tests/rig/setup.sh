#!/usr/bin/env bash
# Makes what the guest of machine.py boots, once: Debian's kernel (extracted, never installed) and a
# small initial RAM disk. As root, on Debian or Ubuntu, x86-64; about 15 s the first time, then 1 s.
set -euo pipefail
cache=${POLE_RIG_CACHE:-/var/cache/pole-drive-rig}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
packages=(busybox-static cpio kmod qemu-system-x86 xz-utils zstd)

say() { echo "$*" >&2; }
die() {
  say "$*"
  exit 1
}

[ "$(id -u)" = 0 ] || die 'tests/rig/setup.sh: needs root.'
[ "$(uname -m)" = x86_64 ] || die 'tests/rig/setup.sh: knows kernels for x86-64 alone.'
export PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive
if ! dpkg-query --show "${packages[@]}" >/dev/null 2>&1; then
  apt-get -qq update
  apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "${packages[@]}" \
    >/dev/null
fi
mkdir -p "$cache"
cd "$cache"
exec 9>lock
flock 9 # two set-ups at once would mix their files

# The newest kernel package that the distribution's own name for "the kernel" leads to.
kernel_packages() {
  local name image modules
  for name in linux-image-amd64 linux-image-generic; do
    image=$(apt-cache depends "$name" 2>/dev/null | grep -o -m 1 'linux-image-[0-9].*') || continue
    echo "$image"
    modules=linux-modules-${image#linux-image-} # Ubuntu keeps the modules apart
    if apt-cache show "$modules" >/dev/null 2>&1; then echo "$modules"; fi
    return
  done
  return 1
}

fetch_kernel() {
  local wanted
  wanted=$(kernel_packages) || return 1
  # shellcheck disable=SC2086 # one word a package
  (cd packages && apt-get -qq -o APT::Sandbox::User=root download $wanted)
}

if [ ! -e kernel/complete ]; then
  rm -rf kernel packages
  mkdir packages kernel
  fetch_kernel 2>/dev/null || { apt-get -qq update && fetch_kernel; } ||
    die 'tests/rig/setup.sh: apt gives neither linux-image-amd64 nor linux-image-generic.'
  for file in packages/*.deb; do dpkg -x "$file" kernel; done
  [ -e kernel/lib ] || ln -s usr/lib kernel/lib
  depmod --basedir "$cache/kernel" "$(ls kernel/lib/modules)"
  rm -rf packages
  touch kernel/complete
fi
version=$(ls kernel/lib/modules)
ln -sfn "kernel/boot/vmlinuz-$version" vmlinuz

# What the guest needs before it sees this machine's own root: a shell, and modules in this order.
rm -rf ram
mkdir -p ram/{bin,proc,sys,dev,host,changes,new,modules}
cp "$(command -v busybox)" ram/bin/busybox
install -m 755 "$here/init" ram/init
for module in virtio_pci 9p 9pnet_virtio overlay virtio_console; do
  modprobe --dirname "$cache/kernel" --set-version "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
  name=$(basename "$file")
  plain=${name%.xz}
  plain=${plain%.zst}
  case "$name" in
    *.xz) xz -dc "$file" ;;
    *.zst) zstd -qdc "$file" ;;
    *) cat "$file" ;;
  esac >"ram/modules/$plain"
  echo "$plain" >>ram/modules/order
done
(cd ram && find . | cpio --create --format=newc --quiet | gzip -1) >initrd.new
mv initrd.new initrd
rm -rf ram
say "The drive rig is ready in $cache (Linux $version)."
