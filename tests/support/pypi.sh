# Sourced by tests that bring a client from PyPI: pypi VENV MODULE REQUIREMENT... makes VENV/bin/python able to import MODULE. Where PyPI cannot be
# reached the test is skipped, with a message; any other failure fails it. Wants `work`.
# shellcheck shell=bash

pypi() {
  local venv=$1 module=$2
  shift 2
  "$venv/bin/python" -c "import $module" 2>/dev/null && return
  rm -rf "$venv"
  python3 -m venv "$venv" || { echo "FAILED: python3 -m venv (Debian: python3-venv)"; exit 1; }
  "$venv/bin/pip" --disable-pip-version-check --no-input install --retries 2 --timeout 20 "$@" >"$work/pip" 2>&1 && return
  cat "$work/pip"
  rm -rf "$venv"
  grep -qiE 'connection|timed out|resol|unreachable|proxy' "$work/pip" && { echo "skipped: PyPI cannot be reached"; exit 77; }
  echo "FAILED: the client cannot be installed"
  exit 1
}
