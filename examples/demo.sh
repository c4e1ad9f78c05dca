#!/bin/sh
# demo.sh BUILD_DIR [mandelbrot options] - four nodes on this machine draw a Mandelbrot picture.
# Everything but the picture lives in a temporary directory and is gone afterwards.
set -eu
build=$1
shift
here=$(dirname "$0")
scratch=$(mktemp -d)
export MUTIRAO_HOME="$scratch/home" MUTIRAO_RUNTIME_DIR="$scratch/run" MUTIRAO_BIN="$build/mutirao"
unset MUTIRAO_SOCKET MUTIRAO_NODE MUTIRAO_POOL

finish() {
    code=$?
    trap - EXIT INT TERM
    "$build/mutirao" down --all >/dev/null 2>&1 || true
    rm -rf "$scratch"
    exit "$code"
}
trap finish EXIT INT TERM

"$here/../contrib/install.sh" "$build" "$scratch/prefix" "$scratch/prefix" 2>/dev/null
"${CC:-cc}" -O2 -std=gnu11 -I"$scratch/prefix/include" "$here/c/mandelbrot.c" -o "$scratch/mandelbrot" \
    -L"$scratch/prefix/lib" -Wl,-rpath,"$scratch/prefix/lib" -lmutirao

echo "Four nodes on this machine, each a daemon of its own with one slot:"
"$build/mutirao" up --local 4 --slots 1
"$build/mutirao" tree
echo
"$scratch/mandelbrot" "$@"
