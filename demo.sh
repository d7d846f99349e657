#!/bin/sh
# make demo: the demo site, one crawl of it on two crawl processes, and what came of it.
# Usage: demo.sh DIRECTORY-OF-THE-ENVIRONMENT'S-PROGRAMS
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$1" && pwd)
out="$here/demo-output"
rm -rf "$out"
mkdir -p "$out"
VSCRAPY_HOME="$out/home"
export VSCRAPY_HOME
unset VSCRAPY_REDIS_URL || true

"$bin/python" "$here/example_project/site/serve.py" --port 0 --delay-ms 30 --port-file "$out/port" >"$out/site.log" 2>&1 &
site=$!
finish() {
    "$bin/vscrapy" shutdown >/dev/null 2>&1 || true
    kill "$site" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 130' INT TERM
waited=0
while [ ! -s "$out/port" ]; do
    waited=$((waited + 1))
    [ "$waited" -le 100 ] || { echo "demo: the demo site did not start; see $out/site.log" >&2; exit 1; }
    sleep 0.1
done
base="http://127.0.0.1:$(cat "$out/port")"

cd "$here/example_project"
echo "demo: the site is at $base; now, in example_project:"
echo "\$ vscrapy crawl books -a base=$base -O ../demo-output/books.jsonl"
"$bin/vscrapy" crawl books -a "base=$base" -O "$out/books.jsonl" -L INFO
echo
"$bin/vscrapy" -l
echo
echo "demo: $(wc -l <"$out/books.jsonl") items in demo-output/books.jsonl; the first:"
head -n 1 "$out/books.jsonl"
