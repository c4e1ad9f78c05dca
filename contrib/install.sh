#!/bin/sh
# install.sh BUILD_DIR TARGET PREFIX - copies what was built below TARGET; the pkg-config file says PREFIX.
set -eu
if [ $# -ne 3 ]; then
    echo "usage: install.sh BUILD_DIR TARGET PREFIX   (TARGET is where files go now, PREFIX where they will be)" >&2
    exit 2
fi
here=$(dirname "$0")
build=$1 target=$2 prefix=$3
version=$("$build/mutirao" --version | cut -d' ' -f2)
mkdir -p "$target/bin" "$target/lib/pkgconfig" "$target/include" "$target/share/man/man1" \
    "$target/share/bash-completion/completions" "$target/share/zsh/site-functions" \
    "$target/share/fish/vendor_completions.d"

install -m 755 "$build/mutirao" "$target/bin/mutirao"
install -m 755 "$build/libmutirao.so" "$target/lib/libmutirao.so"
install -m 644 "$build/libmutirao.a" "$target/lib/libmutirao.a"
install -m 644 "$here/../crates/capi/include/"*.h "$target/include/"
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" "$here/mutirao.pc.in" > "$target/lib/pkgconfig/mutirao.pc"
"$build/mutirao" man > "$target/share/man/man1/mutirao.1"
"$build/mutirao" completions bash > "$target/share/bash-completion/completions/mutirao"
"$build/mutirao" completions zsh > "$target/share/zsh/site-functions/_mutirao"
"$build/mutirao" completions fish > "$target/share/fish/vendor_completions.d/mutirao.fish"
echo "mutirao $version is installed below $target" >&2
