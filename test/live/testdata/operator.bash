# What the operators' scripts beside this file share. They are written for rbd-mirror: its flags, files and words, and no
# others. The test gives them
#   HERE, THERE   names of the daemon's cluster and of its peer; NAME.conf of both is in the working directory
#   POOL          a pool that both mirror
#   ID            the daemon's cephx id
# and runs them in a directory of their own.

patience=150 # seconds

die() {
	echo "$*" >&2
	exit 1
}

# section TITLE: where the script is, and when
section() { echo "= $SECONDS s: $*"; }

# eventually COMMAND...: until it succeeds
eventually() {
	local deadline=$((SECONDS + patience))
	until "$@"; do
		[ $SECONDS -lt $deadline ] || die "not within $patience s: $*"
		sleep 0.5
	done
}

# start_mirror CLUSTER [OPTION...]: a daemon in the background, with files that are named after the cluster
start_mirror() {
	local cluster=$1
	shift
	rbd-mirror --cluster "$cluster" --id "$ID" --pid-file "$PWD/$cluster.pid" --admin-socket "$PWD/$cluster.asok" \
		--log-file "$PWD/$cluster.log" --debug-rbd-mirror=20 --debug-journaler=5 --daemonize=true \
		--rbd-mirror-journal-poll-age=1 --rbd-mirror-image-state-check-interval=1 "$@"
	eventually test -S "$cluster.asok"
	runs "$cluster" || die "the daemon beside $cluster does not run: $(tail -5 "$cluster.log")"
}

# runs CLUSTER: by its pid file, and as operators look for it
runs() {
	local pid
	pid=$(cat "$1.pid") && [ -n "$pid" ] && ps -C rbd-mirror -o pid= | grep -qw "$pid"
}

stopped() { ! kill -0 "$1" 2>/dev/null; }

# stop_mirror CLUSTER [SIGNAL]: by the pid file, and wait for the end
stop_mirror() {
	local pid
	pid=$(cat "$1.pid")
	kill "${2:--TERM}" "$pid"
	eventually stopped "$pid"
}

admin() { # CLUSTER COMMAND
	ceph --admin-daemon "$PWD/$1.asok" $2
}

# says CLUSTER IMAGE STATE [DESCRIPTION]: the status as text
says() {
	local status
	status=$(rbd --cluster "$1" mirror image status "$2" 2>/dev/null) || return 1
	grep -q "^  state: *$3\$" <<<"$status" && grep -q "^  description: .*${4-}" <<<"$status"
}

# wait_state CLUSTER IMAGE STATE [DESCRIPTION]
wait_state() {
	local deadline=$((SECONDS + patience))
	until says "$@"; do
		[ $SECONDS -lt $deadline ] || die "$2 is not $3 ${4-} on $1: $(rbd --cluster "$1" mirror image status "$2" 2>&1)"
		sleep 0.5
	done
}

# position CLUSTER IMAGE PATTERN: the newest commit position of a client of the journal
position() {
	rbd --cluster "$1" journal status --pool "${2%/*}" --image "${2#*/}" |
		sed -nEe "s/^.*\[id=$3, commit_position=\[positions=\[\[([^]]*)\].*\$/\1/p"
}

replayed() { [ "$(position "$1" "$2" '[0-9a-f-]+')" = "$3" ]; }

# wait_replay PRIMARY SECONDARY IMAGE: what was written by now is on both
wait_replay() {
	local master
	wait_state "$2" "$3" up+replaying
	master=$(position "$1" "$3" '')
	[ -n "$master" ] || die "$3 has no position on $1: $(rbd --cluster "$1" journal status "$3")"
	eventually replayed "$1" "$3" "$master"
}

write_image() { # CLUSTER IMAGE
	rbd --cluster "$1" bench --io-type write --io-size 4096 --io-threads 4 --io-total 1M --io-pattern rand "$2" >/dev/null
}

# compare IMAGE[@SNAP]: equal on both sites
compare() {
	rm -f a.export b.export
	rbd --cluster "$THERE" export --no-progress "$1" a.export
	rbd --cluster "$HERE" export --no-progress "$1" b.export
	cmp a.export b.export || die "$1 differs"
}
