#!/bin/sh
# Builds the page: sev-attest/web/dist/{index.html,app.js,style.css,verify.js}.
#
# Needs a Rust toolchain with libstd for wasm32-unknown-unknown. When this machine's has none, one
# from Debian trixie is put into a chroot in the cache (root, mmdebstrap; about 1.1 GB, once).
# Nothing is downloaded at later runs. The cache: $CRN_CACHE, or $XDG_CACHE_HOME/crn, or ~/.cache/crn.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${CRN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/crn}/web
target=wasm32-unknown-unknown
suite=trixie
dist=${1:-$here/dist}

say() { printf 'web: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The archive that this machine's apt already uses for Debian's main packages.
mirror() {
    codename=$(. /etc/os-release && printf %s "${VERSION_CODENAME:-}")
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 2>/dev/null |
        awk -v name="$codename" '$2 == name && $3 == "main" { print $1; exit }'
}

# The chroot appears under its name only when it is whole.
toolchain() {
    chroot=$cache/$suite-rust
    if [ -x "$chroot/usr/bin/wasm-ld" ] && [ -d "$chroot/usr/lib/rustlib/$target/lib" ]; then
        return
    fi
    [ "$(id -u)" = 0 ] || die "this rustc has no libstd for $target; making one needs root"
    command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: apt-get install mmdebstrap"
    archive=$(mirror)
    [ -n "$archive" ] || die "apt has no index of Debian's main archive: run apt-get update first"
    mkdir -p "$cache"
    rm -rf "$chroot.new" "$chroot"
    say "making a $suite chroot with rustc, cargo and libstd for $target (3 minutes, once)"
    mmdebstrap --quiet --variant=apt \
        --include=rustc,cargo,libstd-rust-dev-wasm32,lld,ca-certificates \
        --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        "$suite" "$chroot.new" "$archive"
    mkdir -p "$chroot.new/src" "$chroot.new/out" "$chroot.new/cargo/registry"
    mv "$chroot.new" "$chroot"
}

# The crates come from this machine's cargo, so that the chroot needs no network; its view of the
# repository is read-only. The mounts end with the process.
compile() {
    host_cargo=${CARGO_HOME:-$HOME/.cargo}
    out=$cache/target
    mkdir -p "$out"
    build="cargo build --quiet --offline --locked --profile web --target $target -p sev-attest-web"
    say "fetching crates"
    # this machine's too: procedural macros and build scripts run here
    machine=$(rustc -vV | sed -n 's/^host: //p')
    (cd "$root" && cargo fetch --quiet --locked --target "$target" --target "$machine")
    if [ -d "$(rustc --print target-libdir --target $target 2>/dev/null)" ]; then
        say "compiling with this machine's $(rustc --version)"
        (cd "$root" && CARGO_TARGET_DIR=$out $build)
    else
        toolchain
        say "compiling with $(chroot "$chroot" rustc --version)"
        for name in config.toml config; do
            [ -e "$host_cargo/$name" ] && cp "$host_cargo/$name" "$chroot/cargo/$name"
        done
        unshare --mount --propagation private sh -eu -c '
            chroot=$1 root=$2 registry=$3 out=$4; shift 4
            mount --bind "$root" "$chroot/src"
            mount -o remount,bind,ro "$chroot/src"
            mount --bind "$registry" "$chroot/cargo/registry"
            mount --bind "$out" "$chroot/out"
            exec chroot "$chroot" env -i PATH=/usr/bin:/bin HOME=/root CARGO_HOME=/cargo \
                CARGO_TARGET_DIR=/out CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld \
                sh -c "cd /src && exec $*"
        ' sh "$chroot" "$root" "$host_cargo/registry" "$out" $build
    fi
    wasm=$out/$target/web/sev_attest_web.wasm
}

# A page opened from a file may not read other files, but it may run scripts beside it: the module
# travels as base64 in a script.
pack() {
    mkdir -p "$dist.new"
    cp "$here/page/index.html" "$here/page/style.css" "$here/page/app.js" "$dist.new/"
    {
        printf 'globalThis.SEV_ATTEST_WASM = "'
        base64 -w0 "$wasm"
        printf '";\n'
    } >"$dist.new/verify.js"
    rm -rf "$dist"
    mv "$dist.new" "$dist"
    say "$dist: $(($(wc -c <"$wasm") / 1024)) KiB of WebAssembly"
}

compile
pack
