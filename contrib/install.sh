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
mkdir -p "$target/bin" "$target/share/man/man1" "$target/share/bash-completion/completions" \
    "$target/share/zsh/site-functions" "$target/share/fish/vendor_completions.d"

install -m 755 "$build/mutirao" "$target/bin/mutirao"
"$here/install-library.sh" "$build" "$target" "$prefix"
"$build/mutirao" man > "$target/share/man/man1/mutirao.1"
"$build/mutirao" completions bash > "$target/share/bash-completion/completions/mutirao"
"$build/mutirao" completions zsh > "$target/share/zsh/site-functions/_mutirao"
"$build/mutirao" completions fish > "$target/share/fish/vendor_completions.d/mutirao.fish"
echo "mutirao $version is installed below $target" >&2
