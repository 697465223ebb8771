#!/bin/bash
# Prints the path of the agent's program as it was at COMMIT, built once from the history of this
# repository and kept in ~/.cache/crn-agent by commit. Status 3: the history does not reach so far
# back (a shallow clone, or an archive without one).
#   old-agent.sh COMMIT
set -euo pipefail
cd "$(dirname "$0")/../.."

commit=${1:?usage: old-agent.sh COMMIT}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/crn-agent
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

full=$(git rev-parse --quiet --verify "$commit^{commit}" 2>/dev/null) || {
    echo "old-agent: the history has no commit $commit: a shallow clone?" >&2
    exit 3
}
out=$cache/agent-${full:0:12}
mkdir -p "$cache"
exec 9>"$cache/old-agent.lock"
flock 9
if [[ ! -x $out ]]; then
    begun=$SECONDS
    mkdir -p "$target"
    work=$(mktemp -d "$target/old-agent.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/source"
    git archive "$full" | tar -x -C "$work/source"
    # Third-party crates are the same at both ends of the history, for the most part. Links, no
    # copies: what is not built anew is not written to. Not the lock of the directory.
    if [[ -d $target/debug/deps ]]; then
        mkdir -p "$work/target/debug"
        cp -al "$target"/debug/{.fingerprint,build,deps} "$work/target/debug"
        cp "$target/.rustc_info.json" "$work/target" 2>/dev/null || true
    fi
    # The features of the whole workspace, for the sake of what is compiled already.
    (cd "$work/source" && CARGO_TARGET_DIR=$work/target nice \
        "${CARGO:-cargo}" build --locked --quiet --workspace --bin crn-agent) >&2
    install -m 755 "$work/target/debug/crn-agent" "$out.new"
    mv "$out.new" "$out"
    echo "old-agent: built ${full:0:12} in $((SECONDS - begun)) s" >&2
fi
echo "$out"
