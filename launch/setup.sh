# Sourced by the two README commands: installs what is missing (Debian 12) and builds.
# shellcheck shell=bash

packages=(
  g++ cmake ninja-build git ca-certificates
  libgrpc++-dev protobuf-compiler-grpc protobuf-compiler libprotobuf-dev libabsl-dev
  libopenmpi-dev openmpi-bin
  libcli11-dev libspdlog-dev nlohmann-json3-dev libyaml-cpp-dev libpcre2-dev libicu-dev libssl-dev pkg-config
)
test_packages=(libgtest-dev libgmock-dev libbenchmark-dev iproute2 iptables xz-utils clang libclang-rt-14-dev)

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# install PACKAGE...: only what is missing, with sudo where needed.
install() {
  local missing=()
  for p in "$@"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
  ((${#missing[@]})) || return 0
  local run=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || { echo "run as root, or install sudo: packages are missing: ${missing[*]}" >&2; exit 1; }
    run=(sudo)
  fi
  say "Installing ${#missing[@]} Debian packages"
  "${run[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${run[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# build FOLDER TARGET... -- CMAKE_ARGUMENT...
build() {
  local folder=$1 targets=() arguments=()
  shift
  while (($#)) && [[ $1 != -- ]]; do targets+=("$1"); shift; done
  (($#)) && shift
  arguments=("$@")
  if [[ ! -f $folder/build.ninja ]]; then
    say "Configuring"
    cmake -S . -B "$folder" -G Ninja "${arguments[@]}" >"$folder.log" 2>&1 || { cat "$folder.log" >&2; exit 1; }
  fi
  say "Building"
  ninja -C "$folder" "${targets[@]}"
}
