#!/bin/sh
# Fails if an object file compiled for AVX-512 defines a symbol that the linker may share with other files: it could then keep
# the AVX-512 copy and run it on a machine without. Arguments: static libraries.
set -eu
status=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for library in "$@"; do
  objects=$(ar t "$library" | grep avx512) || { echo "$library holds no AVX-512 object: nothing to check"; status=1; continue; }
  (cd "$work" && ar x "$library" $objects)
  for object in $objects; do
    # W, V, u: weak or unique, that is an inline function, a template or an inline variable. DW.ref.* are references, not code.
    shared=$(nm -C "$work/$object" | grep -E '^[0-9a-f]+ [WVu] ' | grep -v 'DW\.ref\.' || true)
    if [ -n "$shared" ]; then
      echo "$object defines what other files may define too:"
      echo "$shared"
      status=1
    fi
  done
done
exit $status
