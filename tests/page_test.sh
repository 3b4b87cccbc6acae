#!/usr/bin/env bash
# The page in headless Chromium: page_test.sh INVAR. Skipped where Chromium or Selenium is not installed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
invar=$1
work=$(mktemp -d)
# shellcheck source=support/serve.sh
source "$here/support/serve.sh"
trap '[[ -z $server ]] || kill -9 "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

for program in /usr/bin/chromium /usr/bin/chromedriver; do
  [[ -x $program ]] || { echo "skipped: $program is not installed"; exit 77; }
done
/usr/bin/python3 -c 'import selenium' 2>/dev/null || { echo "skipped: python3-selenium is not installed"; exit 77; }

start_server --threads 1 --num-gpu-blocks-override 4096 --served-model-name demo
cd "$work" || exit 1
/usr/bin/python3 "$here/page_test.py" "http://$http" || exit 1
end_server
