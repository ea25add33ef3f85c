#!/bin/sh
# Entry point of the image, with the contract of the Go project's: configuration and data are in
# IPFS_CLUSTER_PATH, the first start makes a configuration there, arguments are those of ipfs-cluster-service, and
# nothing runs as root.
set -eu

if [ "$(id -u)" -eq 0 ]; then
  # A volume that a container runtime has made belongs to root.
  [ "$(stat -c %U "$IPFS_CLUSTER_PATH")" = ipfs ] || chown -R ipfs:users "$IPFS_CLUSTER_PATH"
  exec setpriv --reuid=ipfs --regid=users --init-groups --no-new-privs "$0" "$@"
fi

ipfs-cluster-service version
if [ ! -e "$IPFS_CLUSTER_PATH/service.json" ]; then
  ipfs-cluster-service init --consensus "${IPFS_CLUSTER_CONSENSUS:-raft}"
fi
exec ipfs-cluster-service "$@"
