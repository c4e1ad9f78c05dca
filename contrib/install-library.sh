#!/bin/sh
# install-library.sh BUILD_DIR TARGET PREFIX - copies library and header below TARGET; the pkg-config files say PREFIX.
set -eu
if [ $# -ne 3 ]; then
    echo "usage: install-library.sh BUILD_DIR TARGET PREFIX   (TARGET is where files go now, PREFIX where they will be)" >&2
    exit 2
fi
here=$(dirname "$0")
build=$1 target=$2 prefix=$3
header=$here/../crates/capi/include/mutirao.h
number() { sed -n "s/^#define MUTIRAO_VERSION_$1 //p" "$header"; }
version=$(number MAJOR).$(number MINOR).$(number PATCH)
mkdir -p "$target/lib/pkgconfig" "$target/include"

install -m 755 "$build/libmutirao_c.so" "$target/lib/libmutirao.so.$version"
ln -sf "libmutirao.so.$version" "$target/lib/libmutirao.so.0"
ln -sf libmutirao.so.0 "$target/lib/libmutirao.so"
install -m 644 "$build/libmutirao_c.a" "$target/lib/libmutirao.a"
install -m 644 "$header" "$(dirname "$header")/spd.h" "$(dirname "$header")/ipar.h" "$target/include/"
for file in mutirao mutirao-static; do
    sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" "$here/$file.pc.in" > "$target/lib/pkgconfig/$file.pc"
done
