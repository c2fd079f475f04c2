#!/bin/sh
# Stands in for nvcc: gives empty objects, or functions that say so and stop, for candle's kernels of quantised and
# mixture-of-experts products, which take minutes to compile and no Vision Transformer calls. All else goes to nvcc.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
source='' object='' previous='' compiling=''
for argument in "$@"; do
    [ "$previous" = -o ] && object=$argument
    [ "$argument" = -c ] && compiling=yes
    case $argument in *.cu) source=$argument ;; esac
    previous=$argument
done
if [ -n "$compiling" ]; then
    case $source in
    */moe/moe_gguf.cu) exec cc -O1 -fPIC -w -c -o "$object" "$here/left-out.c" ;;
    */moe/*.cu | *mmvq_gguf.cu | */mmq_gguf/*.cu) exec cc -fPIC -w -c -o "$object" -x c /dev/null ;;
    esac
fi
exec "$here/../bin/nvcc" "$@"
