#!/bin/sh
# Checks and measures vitad on this machine's GPU: run.sh [DEVICE], cuda:0 if left out. Needs a driver of version 580 or
# later and CUDA 13's libraries, from a toolkit or from Python packages; no Rust. Everything it prints is also kept
# in the folder `results` beside this script.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
device=${1:-cuda:0}
program=$here/bin/xtask
results=$here/results
mkdir -p "$results" || exit 1
# By tar, or where it has no xz by Python.
[ -x "$program" ] || tar -C "$here" -xJf "$here/payload.tar.xz" ||
    "${PYTHON:-python3}" -c 'import sys, tarfile; tarfile.open(sys.argv[2]).extractall(sys.argv[1])' \
        "$here" "$here/payload.tar.xz" || exit 1

# Where CUDA's libraries may be: a toolkit, or the `nvidia` packages of a Python.
for folder in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib; do
    [ -d "$folder" ] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
for python in "${PYTHON:-python3}" python; do
    folders=$("$python" -c '
import glob, os, sys
print(":".join(sorted({d for p in sys.path for d in glob.glob(os.path.join(p, "nvidia", "*", "lib"))})))
' 2>/dev/null) || continue
    [ -n "$folders" ] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folders
    break
done
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"

missing=$(ldd "$program" 2>/dev/null | grep 'not found')
if [ -n "$missing" ]; then
    printf 'libraries are missing:\n%s\n' "$missing"
    echo 'libcuda comes with the driver; the others with CUDA 13 or with'
    echo '  python3 -m pip install nvidia-cublas==13.1.0.3 nvidia-curand==10.4.0.35 nvidia-cuda-nvrtc==13.0.88'
    echo 'or name their folders in LD_LIBRARY_PATH.'
    exit 1
fi

{
    date -u '+%Y-%m-%d %H:%M UTC'
    uname -srm
    nvidia-smi --query-gpu=index,name,driver_version,compute_cap,memory.total --format=csv 2>&1
} | tee "$results/machine.txt"

failed=0
# stage NAME ARGUMENTS: runs the program, shows and keeps what it says.
stage() {
    name=$1
    shift
    printf '\n== %s\n' "$name"
    { "$program" "$@" 2>&1; echo $? >"$results/$name.status"; } | tee "$results/$name.txt"
    [ "$(cat "$results/$name.status")" = 0 ] || failed=$((failed + 1))
}

# Single precision without TF32, within the tolerances that each case states.
stage conform conform --device "$device" "$here/fixtures"
# Every operation and its gradients in f32, f16 and bf16, a network at each precision, and every optimiser, within the tolerances in the tables.
stage operations gpu-check --device "$device"
stage bench-ops bench ops --device "$device" --json
stage bench-backbone bench backbone --device "$device" --precision f32,bf16 --json
stage bench-train-step bench train-step --device "$device" --json
stage bench-optimizers bench optimizers --device "$device" --json

printf '\n== summary\n'
cat "$results/machine.txt"
printf '%-20s %-8s %s\n' stage result 'last line'
for name in conform operations bench-ops bench-backbone bench-train-step bench-optimizers; do
    if [ "$(cat "$results/$name.status")" = 0 ]; then result=ok; else result=FAILED; fi
    printf '%-20s %-8s %s\n' "$name" "$result" "$(tail -n 1 "$results/$name.txt" | cut -c 1-80)"
done | tee "$results/summary.txt"
[ "$failed" -eq 0 ]
