#!/bin/sh
# Checks and measures vitad on this machine's GPU: run.sh [DEVICE], cuda:0 if left out. Needs a driver of version 580 or
# later and CUDA 13's libraries, of them an NVRTC no newer than the driver's CUDA (a newer one's code is refused); no Rust.
# Everything it prints is also kept in the folder `results` beside this script, and the benchmarks' figures as JSON.
#
# PYTHON, `python3` if not set, is a Python that may have torch; its speed is then measured beside ours.
# The libraries are looked for in LD_LIBRARY_PATH, an environment `cuda` beside this script, a toolkit, and PYTHON's packages.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
device=${1:-cuda:0}
python=${PYTHON:-python3}
payload=$here/payload
program=$payload/bin/xtask
results=$here/results
mkdir -p "$results" || exit 1

# unpack FOLDER: by tar, or where it has no xz by Python.
unpack() {
    tar -C "$1" -xJf "$here/payload.tar.xz" ||
        "$python" -c 'import sys, tarfile; tarfile.open(sys.argv[2]).extractall(sys.argv[1])' \
            "$1" "$here/payload.tar.xz"
}
if [ ! -d "$payload" ]; then
    rm -rf "$payload.partial"
    if ! { mkdir "$payload.partial" && unpack "$payload.partial" && mv "$payload.partial" "$payload"; }; then
        echo "can't unpack $here/payload.tar.xz"
        exit 1
    fi
fi

# Where CUDA's libraries may be.
libraries=
for folder in "$here"/cuda/lib/python3*/site-packages/nvidia/*/lib \
    /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib; do
    [ -d "$folder" ] && libraries=${libraries:+$libraries:}$folder
done
for candidate in "$python" python; do
    folders=$("$candidate" -c '
import glob, os, sys
print(":".join(sorted({d for p in sys.path for d in glob.glob(os.path.join(p, "nvidia", "*", "lib"))})))
' 2>/dev/null) || continue
    [ -n "$folders" ] && libraries=${libraries:+$libraries:}$folders
    break
done
# PyTorch brings libraries of its own, which ours must not stand before.
cat >"$results/python" <<END
#!/bin/sh
LD_LIBRARY_PATH='${LD_LIBRARY_PATH:-}' exec '$python' "\$@"
END
chmod +x "$results/python"
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}${LD_LIBRARY_PATH:+${libraries:+:}}${libraries:-}"

missing=$(ldd "$program" 2>/dev/null | grep 'not found')
if [ -n "$missing" ]; then
    printf 'libraries are missing:\n%s\n' "$missing"
    packages=
    case $missing in *libcublas*) packages="$packages nvidia-cublas==13.1.0.3" ;; esac
    case $missing in *libcurand*) packages="$packages nvidia-curand==10.4.0.35" ;; esac
    case $missing in *libnvrtc*) packages="$packages nvidia-cuda-nvrtc==13.0.88" ;; esac
    case $missing in *libcuda.so*) echo "libcuda comes with NVIDIA's driver." ;; esac
    if [ -n "$packages" ]; then
        echo 'A toolkit of CUDA 13 has them; or get them into an environment where this script looks and PyTorch does not:'
        echo "  $python -m venv '$here/cuda' && '$here/cuda/bin/pip' install$packages"
        echo 'or name their folders in LD_LIBRARY_PATH.'
    fi
    exit 1
fi

{
    date -u '+%Y-%m-%d %H:%M UTC'
    echo "commit $(cat "$payload/bin/commit.txt")"
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
# measure WHAT ARGUMENTS: a benchmark, whose figures are also kept as JSON.
measure() {
    what=$1
    shift
    stage "bench-$what" bench "$what" --device "$device" --python "$results/python" \
        --json-file "$results/bench-$what.json" "$@"
}

# Single precision without TF32, within the tolerances that each case states.
stage conform conform --device "$device" "$payload/fixtures"
# Every operation and its gradients in f32, f16 and bf16, a network at each precision, and every optimiser, within the tolerances in the tables.
stage operations gpu-check --device "$device"
measure ops
measure backbone --precision f32,bf16
measure train-step
measure optimizers

printf '\n== summary\n'
cat "$results/machine.txt"
printf '%-20s %-8s %s\n' stage result 'last line'
for name in conform operations bench-ops bench-backbone bench-train-step bench-optimizers; do
    if [ "$(cat "$results/$name.status")" = 0 ]; then result=ok; else result=FAILED; fi
    printf '%-20s %-8s %s\n' "$name" "$result" "$(tail -n 1 "$results/$name.txt" | cut -c 1-80)"
done | tee "$results/summary.txt"
[ "$failed" -eq 0 ]
