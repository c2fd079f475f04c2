#!/usr/bin/env bash
# Runs the tests of vit-ops on a processor with AMX tiles that Bochs plays: one core of a Sapphire Rapids under Linux,
# with the permission that a process has to ask for and the trap at its first tile. For results, not for speed.
#
#   tests/emulated-amx/run.sh BOCHS [PROGRAM]
#
# BOCHS: the source of Bochs 3.0, unpacked or not (Debian: `apt-get source --download-only bochs` of trixie). PROGRAM: a
# program with tests; if left out, those of vit-ops are built. Installs packages of Debian, as root.
set -euo pipefail
cd "$(dirname "$0")/../.."
source=$(realpath "${1:?the source of Bochs 3.0}")
program=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

apt-get install -qq -y --no-install-recommends \
    bochsbios busybox-static cpio dosfstools fdisk g++ make mtools syslinux syslinux-common vgabios >/dev/null

# Bochs.
if [ -d "$source" ]; then
    cp -r "$source" "$work/bochs"
else
    mkdir "$work/bochs"
    tar xf "$source" -C "$work/bochs" --strip-components 1
fi
python3 tests/emulated-amx/add_xfd.py "$work/bochs"
(
    cd "$work/bochs"
    ./configure --enable-x86-64 --enable-cpu-level=6 --enable-avx --enable-evex --enable-amx --enable-pci \
        --enable-repeat-speedups --enable-fast-function-calls --enable-handlers-chaining \
        --with-nogui --without-x11 CXXFLAGS=-O2 CFLAGS=-O2
    make -j"$(nproc)"
) >"$work/bochs.txt" 2>&1 || { tail -n 20 "$work/bochs.txt" && exit 1; }

# A kernel, unpacked without being installed.
kernel=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
(cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$kernel" && dpkg-deb -x "$kernel"_*.deb kernel)

# A system that runs the tests and switches itself off.
if [ -z "$program" ]; then
    program=$(cargo test --release -p vit-ops --lib --no-run --message-format=json |
        python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "vit_ops": print(message["executable"])')
fi
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp}
cp /bin/busybox "$root/bin/"
cp "$program" "$root/bin/tests"
for library in $(ldd "$program" | grep -o '/lib[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
grep -m1 'model name' /proc/cpuinfo
export VITAD_EXPECT_TILES=1 RAYON_NUM_THREADS=2
tests --test-threads=1 2>&1
echo "the tests ended with $?"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"

# A disk that starts it. Without the options about page tables, branches and copies the kernel does not come up in Bochs.
megabytes=$(($(stat -c %s "$work/initrd.gz") / 1000000 + 40))
disk=$work/disk.img
truncate -s $((megabytes + 1))M "$disk"
echo '2048,,6,*' | sfdisk -q "$disk"
mkfs.vfat -F 16 --offset 2048 "$disk" $((megabytes * 1024)) >/dev/null
syslinux --offset $((2048 * 512)) --install "$disk"
dd if=/usr/lib/syslinux/mbr/mbr.bin of="$disk" conv=notrunc bs=440 count=1 status=none
cat >"$work/syslinux.cfg" <<'CFG'
DEFAULT linux
PROMPT 0
LABEL linux
 KERNEL vmlinuz
 APPEND initrd=initrd.gz console=ttyS0,115200 earlyprintk=serial,ttyS0,115200 no5lvl ibt=off clearcpuid=fsrm tsc=reliable nokaslr mitigations=off apparmor=0 rdinit=/init
CFG
mcopy -i "$disk@@1M" "$work/syslinux.cfg" ::syslinux.cfg
mcopy -i "$disk@@1M" "$work"/kernel/boot/vmlinuz-* ::vmlinuz
mcopy -i "$disk@@1M" "$work/initrd.gz" ::initrd.gz
cat >"$work/bochsrc" <<RC
config_interface: textconfig
display_library: nogui
megs: 1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
cpu: model=sapphire_rapids, count=1, ips=200000000, reset_on_triple_fault=0
clock: sync=none
ata0-master: type=disk, path=$disk, mode=flat, translation=auto
boot: disk
com1: enabled=1, mode=file, dev=$work/serial.txt
log: $work/log.txt
panic: action=fatal
error: action=ignore
info: action=ignore
RC
timeout 2400 "$work/bochs/bochs" -q -f "$work/bochsrc" </dev/null >"$work/out.txt" 2>&1 || true
tr -d '\r' <"$work/serial.txt" | grep -aE '^(model name|test |the tests|thread|  )' || tail -n 20 "$work/out.txt" "$work/log.txt" "$work/serial.txt"
tr -d '\r' <"$work/serial.txt" | grep -aqx 'the tests ended with 0'
