#!/bin/bash
# The daemon's life as an init script sees it: start, files, looks, signals, end.
set -eu -o pipefail
. "$(dirname "$0")/operator.bash"

rbd-mirror --version | grep -q . || die "no version"
rbd-mirror --help 2>&1 | grep -qe '--setuser\|--foreground\|-f ' || die "the help does not tell of the usual flags"

start_mirror "$HERE"
pid=$(cat "$HERE.pid")
eventually test -s "$HERE.log"
tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "--id $ID" || die "ps does not show how it was started"

# The admin socket, as monitoring asks it.
admin "$HERE" help | grep -q '"rbd mirror status"' || die "help lacks rbd mirror status"
admin "$HERE" version | grep -q '"version"' || die "no version at the socket"
admin "$HERE" "config show" | grep -q '"rbd_mirror_journal_poll_age": "1' || die "an option of the command line does not show"
admin "$HERE" "config get rbd_mirror_concurrent_image_syncs" | grep -q '"5"' || die "config get"
admin "$HERE" "perf dump" | grep -q '^{' || die "perf dump"
lists_pool() { admin "$HERE" "rbd mirror status" | grep -q "\"pool\": \"$POOL\""; }
eventually lists_pool
admin "$HERE" "rbd mirror no-such-command" >/dev/null 2>&1 && die "an unknown command succeeds"

# Who is it? The pool's status and the service map tell.
daemon_listed() { rbd --cluster "$HERE" mirror pool status --verbose "$POOL" | grep -q 'leader: true'; }
eventually daemon_listed
rbd --cluster "$HERE" mirror pool status "$POOL" | grep -q '^health: ' || die "no health"
rbd --cluster "$HERE" mirror pool status --format json "$POOL" | grep -q '"daemon_health":"' || die "no daemon_health in JSON"
rbd --cluster "$HERE" mirror pool status --format xml "$POOL" | grep -q '<daemon_health>' || die "no daemon_health in XML"
ceph --cluster "$HERE" service dump | grep -q '"rbd-mirror"' || die "not in the service map"
ceph --cluster "$HERE" -s | grep -q 'rbd-mirror: .* daemon' || die "not in ceph -s"

# Log files are moved away, and opened anew.
mv "$HERE.log" "$HERE.log.1"
kill -HUP "$pid"
eventually test -e "$HERE.log"
runs "$HERE" || die "SIGHUP ended it"

stop_mirror "$HERE"
[ ! -e "$HERE.asok" ] || die "the admin socket stays"
[ ! -e "$HERE.pid" ] || die "the pid file stays"

# Started anew at once; with CEPH_ARGS instead of flags, in the foreground, ended by Ctrl-C.
CEPH_ARGS="--cluster $HERE --id $ID" rbd-mirror -f --admin-socket "$PWD/$HERE.asok" --log-file "$PWD/$HERE.log" &
child=$!
eventually test -S "$HERE.asok"
eventually lists_pool
kill -INT $child
eventually stopped $child
wait $child || true # rbd-mirror's status is 1 at times

# What cannot work says so, and leaves nothing running.
if rbd-mirror --cluster "$HERE" --id nobody-knows --pid-file "$PWD/wrong.pid" --log-file "$PWD/wrong.log" -f >wrong.out 2>&1; then
	die "an unknown user is accepted"
fi
