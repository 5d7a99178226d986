#!/bin/bash
# Images that are enabled one by one.
set -eu -o pipefail
. "$(dirname "$0")/operator.bash"
image=$POOL/vm

start_mirror "$HERE"
for name in vm other; do
	rbd --cluster "$THERE" create --size 8M --image-feature layering,exclusive-lock "$POOL/$name"
	write_image "$THERE" "$POOL/$name"
done
rbd --cluster "$THERE" mirror image enable "$image" journal
rbd --cluster "$THERE" info "$image" | grep -q 'mirroring primary: true' || die "not primary"
wait_replay "$THERE" "$HERE" "$image"
compare "$image"
[ "$(rbd --cluster "$HERE" ls "$POOL")" = vm ] || die "the other image is mirrored, too"
rbd --cluster "$HERE" info "$image" | grep -q 'mirroring primary: false' || die "primary"
rbd --cluster "$HERE" info "$image" --format xml | grep -q '<state>enabled</state>' || die "not enabled"
if rbd --cluster "$HERE" snap create --no-progress "$image@mine" 2>/dev/null; then
	die "a copy can be changed"
fi

rbd --cluster "$THERE" mirror image disable "$image"
gone() { [ -z "$(rbd --cluster "$HERE" ls "$POOL")" ]; }
eventually gone
rbd --cluster "$THERE" mirror image enable "$image" journal
wait_replay "$THERE" "$HERE" "$image"
compare "$image"
stop_mirror "$HERE"
wait_state "$HERE" "$image" down+stopped || wait_state "$HERE" "$image" down+unknown
