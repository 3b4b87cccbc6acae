#!/bin/bash
# mpirun's launch agent: "ssh" into a network namespace, with a host name of its own.
while [[ $1 == -* ]]; do shift; done
host=$1
shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"
