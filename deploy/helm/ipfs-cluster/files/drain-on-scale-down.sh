# preStop hook of a peer. If its pod ends because the StatefulSet got fewer replicas, it moves the peer's pins to the
# others and removes the peer from the cluster. Any other end of the pod (restart, update, eviction, deletion of the
# chart, zero replicas) changes nothing. Failures change nothing either, and never keep the pod from ending.
#
#   drain-on-scale-down.sh STATEFULSET SECONDS LOG
#
# SECONDS is the time for the drain; with all that comes before and after it, the hook takes 120 seconds more at most.
# LOG is the file for messages: the output of a hook is shown nowhere. Needs curl, jq, and permission to get the
# StatefulSet. The variables KUBERNETES_API and SERVICE_ACCOUNT replace the address of the API and the folder with the
# token.
set -u

set_name=$1
seconds=$2
log_file=$3
api=${KUBERNETES_API:-https://kubernetes.default.svc}
account=${SERVICE_ACCOUNT:-/var/run/secrets/kubernetes.io/serviceaccount}

log() {
  line="drain on scale-down: $(printf '%s' "$*" | tr '\n' ' ')"
  { echo "$line" >>"$log_file"; } 2>/dev/null || echo "$line"
}

leave_alone() {
  log "$*; the peer stays a member"
  exit 0
}

pod=${HOSTNAME:-}
ordinal=${pod##*-}
case "$ordinal" in
  "" | *[!0-9]*) leave_alone "the pod's name \"$pod\" does not end with a number" ;;
esac

namespace=$(cat "$account/namespace" 2>&1) || leave_alone "the pod has no service account: $namespace"
# The header is read from standard input, so that the token is in no list of processes.
answer=$(
  printf 'Authorization: Bearer %s\n' "$(cat "$account/token")" |
    curl --silent --show-error --fail --cacert "$account/ca.crt" --header @- \
      --connect-timeout 5 --max-time 10 --retry 2 --retry-connrefused \
      "$api/apis/apps/v1/namespaces/$namespace/statefulsets/$set_name" 2>&1
) || leave_alone "cannot ask Kubernetes for the number of replicas: $answer"
# A set that is being deleted ends all its pods.
replicas=$(
  printf '%s' "$answer" |
    jq -r 'if .metadata.deletionTimestamp then "deleted" else .spec.replicas end' 2>&1
) || leave_alone "cannot read the answer of Kubernetes: $replicas"
case "$replicas" in
  deleted) leave_alone "the StatefulSet is being deleted" ;;
  0) leave_alone "with zero replicas no peer could take the pins" ;;
  "" | *[!0-9]*) leave_alone "the answer of Kubernetes has no number of replicas: \"$replicas\"" ;;
esac
[ "$ordinal" -ge "$replicas" ] || exit 0

if [ -n "${CLUSTER_RESTAPI_BASICAUTHCREDENTIALS:-}" ]; then
  export CLUSTER_CREDENTIALS="${CLUSTER_RESTAPI_BASICAUTHCREDENTIALS%%,*}"
fi
ctl() {
  limit=$1
  shift
  timeout "$limit" ipfs-cluster-ctl --force-http "$@" 2>&1
}

answer=$(ctl 10 --enc=json id) || leave_alone "this peer does not answer: $answer"
peer=$(printf '%s' "$answer" | jq -er .id 2>&1) || leave_alone "cannot read this peer's id: $peer"
log "$replicas replicas are wanted: moving the pins of $peer to the other peers, within $seconds seconds"
if answer=$(ctl "$seconds" peers drain "$peer" --wait); then
  log "$answer"
  answer=$(ctl 60 peers rm "$peer") || leave_alone "the pins have moved, but the removal failed: $answer"
  log "removed $peer from the cluster"
else
  log "the pins could not be moved: ${answer:-out of time}"
  # A drain that is left would go on when a pod of this number starts again.
  leave_alone "ending the drain: $(ctl 60 peers drain "$peer" --undo)"
fi
