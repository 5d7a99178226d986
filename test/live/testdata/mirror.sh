#!/bin/bash
# A pool's images: replay, status in every format, stop and start at the admin socket, failover, failback, force, resync.
set -eu -o pipefail
. "$(dirname "$0")/operator.bash"
image=$POOL/vm

rbd --cluster "$THERE" create --size 16M --image-feature layering,exclusive-lock,object-map,fast-diff,deep-flatten,journaling "$image"
write_image "$THERE" "$image"
start_mirror "$HERE"
start_mirror "$THERE"
wait_replay "$THERE" "$HERE" "$image"
compare "$image"
wait_state "$THERE" "$image" up+stopped "local image is primary"

section "status formats"
rbd --cluster "$HERE" mirror image status --format json "$image" | grep -q '"state":"up+replaying"' || die "JSON"
rbd --cluster "$HERE" mirror image status --format json "$image" | grep -q '"description":"replaying, {' || die "description"
rbd --cluster "$HERE" mirror image status --format xml "$image" | grep -q '<state>up+replaying</state>' || die "XML"
rbd --cluster "$HERE" mirror image status "$image" | grep -q 'entries_behind_primary' || die "no entries_behind_primary"
counted() { rbd --cluster "$HERE" mirror pool status --verbose "$POOL" | grep -q '^images: 1 total'; }
eventually counted
replaying() { rbd --cluster "$HERE" mirror pool status "$POOL" | grep -q '^    1 replaying'; }
eventually replaying

section "stop, start, restart, flush"
admin "$HERE" "rbd mirror stop $image"
wait_state "$HERE" "$image" up+stopped
write_image "$THERE" "$image"
rbd --cluster "$THERE" snap create --no-progress "$image@snap"
admin "$HERE" "rbd mirror start $image"
wait_replay "$THERE" "$HERE" "$image"
compare "$image@snap"
admin "$HERE" "rbd mirror restart $image"
admin "$HERE" "rbd mirror flush $image"
admin "$HERE" "rbd mirror status $image" | grep -q '"state"' || die "no state of one image"
wait_replay "$THERE" "$HERE" "$image"
admin "$HERE" "rbd mirror status $POOL/nobody" >/dev/null 2>&1 && die "an image that is not there has a status"
admin "$HERE" "rbd mirror stop"
wait_state "$HERE" "$image" up+stopped
admin "$HERE" "rbd mirror start"
wait_replay "$THERE" "$HERE" "$image"

section "failover and failback"
rbd --cluster "$THERE" mirror image demote "$image"
promoted() { rbd --cluster "$HERE" mirror image promote "$image" 2>/dev/null; }
eventually promoted
write_image "$HERE" "$image"
wait_replay "$HERE" "$THERE" "$image"
compare "$image"
wait_state "$HERE" "$image" up+stopped "local image is primary"
rbd --cluster "$HERE" mirror image demote "$image"
back() { rbd --cluster "$THERE" mirror image promote "$image" 2>/dev/null; }
eventually back
write_image "$THERE" "$image"
wait_replay "$THERE" "$HERE" "$image"
compare "$image"

section "force and resync"
rbd --cluster "$HERE" mirror image promote --force "$image"
wait_state "$HERE" "$image" up+stopped
write_image "$HERE" "$image"
write_image "$THERE" "$image"
rbd --cluster "$HERE" mirror image demote "$image"
wait_state "$HERE" "$image" up+error split-brain
rbd --cluster "$HERE" mirror image resync "$image"
wait_state "$HERE" "$image" up+replaying
wait_replay "$THERE" "$HERE" "$image"
compare "$image"

section "the daemon dies"
kill -9 "$(cat "$HERE.pid")"
write_image "$THERE" "$image"
start_mirror "$HERE"
wait_replay "$THERE" "$HERE" "$image"
compare "$image"

rbd --cluster "$THERE" snap purge --no-progress "$image"
rbd --cluster "$THERE" rm --no-progress "$image"
gone() { [ -z "$(rbd --cluster "$HERE" ls "$POOL")" ]; }
eventually gone
stop_mirror "$HERE"
stop_mirror "$THERE"
