#!/bin/sh
# What `make demo` shows. Set CKPT to run it on a file of your own; that file is only read.
set -eu

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi
say() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }

# Runs a command as a reader would type it.
show() {
    printf '$ %s\n' "$*"
    "$@"
}

# Exit code 1 of a scan is a finding, not a failure; 2 ends the demo.
show_scan() {
    code=0
    show tensorkeep scan "$@" || code=$?
    [ "$code" -le 1 ] || exit "$code"
    printf '(exit code %s)\n' "$code"
}

file=${CKPT:-examples/digits.pth}
case $file in "~/"*) file=$HOME/${file#"~/"} ;; esac
name=$(basename "$file")
mkdir -p demo-out
out=$(mktemp -d demo-out/XXXXXX)

say "1. Is it safe to open? Nothing in the file is run to find out."
show_scan "$file"
say "2. What is in it? Look at the sections, the tree and the number of bytes read."
show tensorkeep inspect "$file"
say "3. The weights alone, in a format that cannot hold code."
code=0
show tensorkeep convert "$file" "$out/${name%.*}.safetensors" --verify || code=$?
[ "$code" -eq 0 ] || printf '(exit code %s: not converted, the line above says why)\n' "$code"
if [ -z "${CKPT:-}" ]; then
    say "4. The same checkpoint with one call hidden in it. Look at the sentence that says what it would do."
    show_scan examples/digits-hostile.pth
fi
say "What to look at: the files in $out. Next: make demo CKPT=path/to/yours.pth, then docs/getting-started.md"
