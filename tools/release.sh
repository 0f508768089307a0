#!/usr/bin/env bash
# Builds sdist and wheel into dist/, twice, and checks them: same bytes, metadata, contents, version and changelog.
# The last release's day is the day of its files, so that anyone gets the same ones from the same commit.
#
#   bash tools/release.sh VERSION
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
day=$(sed -n "s/^## \[$version\] - \([0-9-]*\)$/\1/p" CHANGELOG.md)
[ -n "$day" ] || { echo "CHANGELOG.md must have a heading '## [$version] - YEAR-MONTH-DAY'"; exit 1; }
grep -q "^version: $version$" CITATION.cff || { echo "CITATION.cff must have version: $version"; exit 1; }
grep -q "^date-released: $day$" CITATION.cff || { echo "CITATION.cff must have date-released: $day"; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet build check-wheel-contents "setuptools>=77" twine
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(date -u -d "$day" +%s)
for run in first second; do
    git archive --prefix="$run/" HEAD | tar -x -C "$work"
    (cd "$work/$run" && "$work/tools/bin/python" tools/build_sdist.py && "$work/tools/bin/python" -m build --quiet --wheel)
done
diff -r "$work/first/dist" "$work/second/dist" || { echo "two builds of one commit differ"; exit 1; }
"$work/tools/bin/twine" check --strict "$work"/first/dist/*
"$work/tools/bin/check-wheel-contents" "$work"/first/dist/*.whl
[ -f "$work/first/dist/captum_gmar-$version.tar.gz" ] || { echo "the package's version must be $version"; exit 1; }
rm -rf dist && cp -r "$work/first/dist" dist
sha256sum dist/*
