# Sourced by the two README commands: installs what is missing (Debian 12) and builds.
# shellcheck shell=bash disable=SC2034

packages=(
  g++ cmake ninja-build git ca-certificates
  libgrpc++-dev protobuf-compiler-grpc protobuf-compiler libprotobuf-dev libabsl-dev libboost-dev
  libopenmpi-dev openmpi-bin
  libcli11-dev libspdlog-dev nlohmann-json3-dev libyaml-cpp-dev libpcre2-dev libicu-dev libssl-dev pkg-config
)
test_packages=(libgtest-dev libgmock-dev libbenchmark-dev iproute2 iptables xz-utils clang libclang-rt-14-dev python3-venv openssl chromium chromium-driver python3-selenium)

# A CUDA toolkit from PyPI, for machines that have none. 13.0 is what every driver from 580 on runs; NCCL is opened at run time.
cuda_packages=(
  'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*'
  'nvidia-nccl-cu13>=2.27,<3'
)
cuda_bench_packages=('nvidia-cublas==13.0.*')  # 0.6 GB: the rival in benches, nothing else

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# install PACKAGE...: only what is missing, with sudo where needed.
install() {
  local missing=()
  command -v apt-get >/dev/null || { echo "this is no Debian (no apt-get): install what these packages hold, then cmake -S . -B build -G Ninja and ninja -C build: $*" >&2; exit 1; }
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

# take_cuda_flag "$@": sets cuda to ON after --cuda, OFF after --no-cuda, else AUTO; the other arguments are left in rest.
take_cuda_flag() {
  cuda=AUTO rest=()
  for argument in "$@"; do
    case $argument in
      --cuda) cuda=ON ;;
      --no-cuda) cuda=OFF ;;
      *) rest+=("$argument") ;;
    esac
  done
}

has_nvcc() { command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc || -x ${CUDA_HOME:-/nowhere}/bin/nvcc ]]; }
has_gpu_driver() { [[ -e /proc/driver/nvidia/version ]] || ldconfig -p | grep -q 'libcuda\.so\.1'; }

# choose_cuda FOLDER PACKAGE...: how to configure for $cuda, in cuda_arguments. Where a GPU is wanted, or its driver is here, and no
# toolkit is, one comes from PyPI into FOLDER/cuda: 0.6 GB, or 1.2 with cuBLAS.
choose_cuda() {
  local folder=$1 root
  shift
  cuda_arguments=("-DINVAR_CUDA=$cuda")
  [[ $cuda != OFF ]] && ! has_nvcc || return 0
  [[ $cuda == ON ]] || has_gpu_driver || return 0
  root=$folder/cuda
  if ! [[ -f $root/packages && $(<"$root/packages") == "$*" ]]; then
    install python3-venv
    say "Fetching a CUDA toolkit from PyPI"
    if ! { python3 -m venv "$root" && "$root/bin/pip" --quiet --disable-pip-version-check install "$@"; }; then
      [[ $cuda == AUTO ]] || { echo "no CUDA toolkit: install one (nvcc 13 in PATH or CUDA_HOME), or allow the way to PyPI" >&2; exit 1; }
      echo "no CUDA toolkit could be fetched: building for CPUs only" >&2
      cuda_arguments=(-DINVAR_CUDA=OFF)
      return 0
    fi
    (
      cd "$root"/lib/python3*/site-packages/nvidia/cu13 || exit
      ln -sfn lib lib64
      ln -sf ../../nccl/include/nccl.h include/
      ln -sf ../../nccl/lib/libnccl.so.2 lib/
      for library in lib/*.so.*; do ln -sf "${library##*/}" "${library%%.so.*}.so"; done  # what linkers look for
    )
    echo "$*" >"$root/packages"
  fi
  root=$(cd "$root"/lib/python3*/site-packages/nvidia/cu13 && pwd)
  cuda_arguments+=("-DCMAKE_CUDA_COMPILER=$root/bin/nvcc" "-DCUDAToolkit_ROOT=$root" "-DCMAKE_BUILD_RPATH=$root/lib")
}

# build FOLDER TARGET... -- CMAKE_ARGUMENT...
build() {
  local folder=$1 targets=() arguments=()
  shift
  while (($#)) && [[ $1 != -- ]]; do targets+=("$1"); shift; done
  (($#)) && shift
  arguments=("$@")
  if ! [[ -f $folder/build.ninja && -f $folder/arguments && $(<"$folder/arguments") == "${arguments[*]}" ]]; then
    say "Configuring"
    cmake -S . -B "$folder" -G Ninja "${arguments[@]}" >"$folder.log" 2>&1 || { cat "$folder.log" >&2; exit 1; }
    echo "${arguments[*]}" >"$folder/arguments"
  fi
  if [[ -f $folder/.ninja_log ]]; then say "Building"; else say "Building; the first time takes minutes"; fi
  ninja -C "$folder" "${targets[@]}"
}
