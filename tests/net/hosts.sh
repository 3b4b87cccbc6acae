# Sourced: several hosts on one machine, as network namespaces joined by the cable of wire.c.
# shellcheck shell=bash

hosts=()
cable=

# Exit code 77 tells ctest that this machine cannot run the test; the reason is printed.
require_namespaces() {
  ((EUID == 0)) || { echo "skipped: network namespaces need root"; exit 77; }
  command -v ip >/dev/null || { echo "skipped: no ip program (iproute2)"; exit 77; }
  ip netns add invar-probe 2>/dev/null || { echo "skipped: this kernel or sandbox refuses network namespaces"; exit 77; }
  ip netns del invar-probe
  [[ -c /dev/net/tun ]] || { mkdir -p /dev/net && mknod /dev/net/tun c 10 200 2>/dev/null; }
  (exec 3<>/dev/net/tun) 2>/dev/null || { echo "skipped: /dev/net/tun cannot be opened"; exit 77; }
}

# make_hosts COUNT [CABLE_OPTION...]: hosts invar0 .. with addresses 10.77.0.1 ..
make_hosts() {
  local count=$1 ends=() i
  shift
  hosts=()
  for ((i = 0; i < count; i++)); do
    hosts+=("invar$i")
    ends+=("invar$i=10.77.0.$((i + 1))/24")
  done
  for ((i = 0; i < count; i++)); do
    ip netns add "invar$i"
    mkdir -p "/etc/netns/invar$i"
    { echo "127.0.0.1 localhost"; for ((j = 0; j < count; j++)); do echo "10.77.0.$((j + 1)) invar$j"; done; } >"/etc/netns/invar$i/hosts"
  done
  "$wire" "$@" "${ends[@]}" &
  cable=$!
  # The cable is up when every host has its address.
  for ((i = 0; i < 100; i++)); do
    ip -n "invar$((count - 1))" addr show eth0 2>/dev/null | grep -q "10.77.0.$count/" && return 0
    sleep 0.05
  done
  echo "the cable did not come up" >&2
  return 1
}

remove_hosts() {
  [[ -z $cable ]] || { kill "$cable" 2>/dev/null; wait "$cable" 2>/dev/null; cable=; }
  local h
  for h in "${hosts[@]}"; do
    ip netns pids "$h" 2>/dev/null | xargs -r kill -9 2>/dev/null
    ip netns del "$h" 2>/dev/null
    rm -rf "/etc/netns/$h"
  done
  hosts=()
}

# on_hosts RANKS SLOTS_PER_HOST PROGRAM...: mpirun from the first host over all of them.
on_hosts() {
  local ranks=$1 slots=$2 list= h
  shift 2
  for h in "${hosts[@]}"; do list+="${list:+,}$h:$slots"; done
  # Keep-alives: a host that vanishes ends the run after seconds, not minutes.
  ip netns exec "${hosts[0]}" unshare --uts sh -c "hostname ${hosts[0]}; exec \"\$@\"" sh \
    mpirun --allow-run-as-root -np "$ranks" --host "$list" --map-by node --mca plm_rsh_agent "$agent" --bind-to none \
    --mca mpi_yield_when_idle 1 --mca btl_vader_single_copy_mechanism none \
    --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 \
    --mca oob_tcp_keepalive_time 3 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 3 "$@"
}
