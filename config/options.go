package config

import "time"

// Options are the values of every option that rbd-warden uses. Make one with
// Defaults or Load; a field is described in the table by its option.
type Options struct {
	// Ceph's options of rbd-mirror.
	JournalCommitAge               time.Duration
	JournalPollAge                 time.Duration
	SyncPointUpdateAge             time.Duration
	ConcurrentImageSyncs           uint64
	PoolReplayersRefreshInterval   time.Duration
	ConcurrentImageDeletions       uint64
	DeleteRetryInterval            time.Duration
	ImageStateCheckInterval        time.Duration
	LeaderHeartbeatInterval        time.Duration
	LeaderMaxMissedHeartbeats      uint64
	LeaderMaxAcquireAttempts       uint64
	ImagePolicyType                string
	ImagePolicyMigrationThrottle   time.Duration
	ImagePolicyUpdateThrottle      time.Duration
	ImagePolicyRebalanceTimeout    time.Duration
	PerfStatsPrio                  uint64
	ImagePerfStatsPrio             uint64
	MemoryAutotune                 bool
	MemoryTarget                   uint64 // bytes
	MemoryBase                     uint64 // bytes
	MemoryExpectedFragmentation    float64
	MemoryCacheMin                 uint64 // bytes
	MemoryCacheResizeInterval      time.Duration
	MemoryCacheAutotuneInterval    time.Duration
	ResyncAfterDisconnect          bool
	DeleteDelay                    time.Duration
	ReplayDelay                    time.Duration
	BlocklistOnBreakLock           bool
	BlocklistExpire                time.Duration // 0: the OSDs' default
	ConcurrentManagementOps        uint64
	RequestTimedOut                time.Duration
	DefaultDataPool                string
	JournalOrder                   uint64
	JournalSplayWidth              uint64
	JournalPool                    string
	JournalMaxPayloadBytes         uint64
	JournalMaxConcurrentObjectSets uint64
	MoveToTrashExpire              time.Duration

	// Our own.
	Warden Warden
}

// Warden are the options of rbd-warden itself, rbd_warden_*.
type Warden struct {
	Workers           uint64
	ControlSocket     string
	HTTPAddress       string
	BindAddress       string
	BytesInFlight     uint64
	ImageBytes        uint64
	ReplayRate        uint64 // bytes a second; 0: no limit
	SyncRate          uint64 // the same, of first copies
	WorkerMemoryLimit uint64
	StartTimeout      time.Duration
	StopTimeout       time.Duration
	HeartbeatInterval time.Duration
	HeartbeatTimeout  time.Duration
	RestartMin        time.Duration
	RestartMax        time.Duration
	RestartIntensity  uint64
	RestartWindow     time.Duration
	ParkedRetry       time.Duration
	OSDTimeout        time.Duration
	MonTimeout        time.Duration
	ConnectTimeout    time.Duration
	ResyncInPlace     bool
	BalanceLoad       bool
	InjectNoBudget    bool
	StallReport       time.Duration
	StallRestart      time.Duration
	StallGrace        time.Duration
	InjectPanic       string
}

// table describes every option. Types, defaults and bounds of Ceph's own are those
// of src/common/options.cc.
var table = []Option{
	{Name: "rbd_mirror_journal_commit_age", Type: Duration, Default: "5",
		About: "time between commits of the replay position to the primary's journal",
		field: func(o *Options) any { return &o.JournalCommitAge }},
	{Name: "rbd_mirror_journal_poll_age", Type: Duration, Default: "5",
		About: "time between looks at an idle journal",
		field: func(o *Options) any { return &o.JournalPollAge }},
	{Name: "rbd_mirror_sync_point_update_age", Type: Duration, Default: "30",
		About: "time between writes of the progress of an initial sync",
		field: func(o *Options) any { return &o.SyncPointUpdateAge }},
	{Name: "rbd_mirror_concurrent_image_syncs", Type: Uint, Default: "5",
		About: "initial syncs at a time, of all daemons of the pool together",
		field: func(o *Options) any { return &o.ConcurrentImageSyncs }},
	{Name: "rbd_mirror_pool_replayers_refresh_interval", Type: Duration, Default: "30",
		About: "time between looks for mirrored pools and peers",
		field: func(o *Options) any { return &o.PoolReplayersRefreshInterval }},
	{Name: "rbd_mirror_concurrent_image_deletions", Type: Uint, Default: "1", Min: 1,
		About: "deletions of mirrored images at a time",
		field: func(o *Options) any { return &o.ConcurrentImageDeletions }},
	{Name: "rbd_mirror_delete_retry_interval", Type: Duration, Default: "30",
		About: "time before a failed deletion is tried again",
		field: func(o *Options) any { return &o.DeleteRetryInterval }},
	{Name: "rbd_mirror_image_state_check_interval", Type: Duration, Default: "30", Min: 1,
		About: "time between checks of every image's state",
		field: func(o *Options) any { return &o.ImageStateCheckInterval }},
	{Name: "rbd_mirror_leader_heartbeat_interval", Type: Duration, Default: "5", Min: 1,
		About: "time between a leader's heartbeats",
		field: func(o *Options) any { return &o.LeaderHeartbeatInterval }},
	{Name: "rbd_mirror_leader_max_missed_heartbeats", Type: Uint, Default: "2",
		About: "heartbeats that a leader may miss before others try to take over",
		field: func(o *Options) any { return &o.LeaderMaxMissedHeartbeats }},
	{Name: "rbd_mirror_leader_max_acquire_attempts_before_break", Type: Uint, Default: "3",
		About: "attempts at a silent leader's lock before it is broken",
		field: func(o *Options) any { return &o.LeaderMaxAcquireAttempts }},
	{Name: "rbd_mirror_image_policy_type", Type: String, Default: "simple", Allowed: []string{"none", "simple"},
		About: "how images are spread over daemons",
		field: func(o *Options) any { return &o.ImagePolicyType }},
	{Name: "rbd_mirror_image_policy_migration_throttle", Type: Duration, Default: "300",
		About: "time after which an image may be moved again",
		field: func(o *Options) any { return &o.ImagePolicyMigrationThrottle }},
	{Name: "rbd_mirror_image_policy_update_throttle_interval", Type: Duration, Default: "1", Min: 1,
		About: "time over which placement decisions are gathered",
		field: func(o *Options) any { return &o.ImagePolicyUpdateThrottle }},
	{Name: "rbd_mirror_image_policy_rebalance_timeout", Type: Duration, Default: "0",
		About: "idle time after which images are balanced anew; 0: never",
		field: func(o *Options) any { return &o.ImagePolicyRebalanceTimeout }},
	{Name: "rbd_mirror_perf_stats_prio", Type: Uint, Default: "5", Max: 11,
		About: "priority of the daemon's performance counters",
		field: func(o *Options) any { return &o.PerfStatsPrio }},
	{Name: "rbd_mirror_image_perf_stats_prio", Type: Uint, Default: "5", Max: 11,
		About: "priority of the images' performance counters",
		field: func(o *Options) any { return &o.ImagePerfStatsPrio }},
	{Name: "rbd_mirror_memory_autotune", Type: Bool, Default: "true",
		About: "keep the worker's memory near rbd_mirror_memory_target",
		field: func(o *Options) any { return &o.MemoryAutotune }},
	{Name: "rbd_mirror_memory_target", Type: Size, Default: "4G",
		About: "bytes of memory that a worker aims to stay within",
		field: func(o *Options) any { return &o.MemoryTarget }},
	{Name: "rbd_mirror_memory_base", Type: Size, Default: "768M",
		About: "estimate of the bytes that a worker needs at least",
		field: func(o *Options) any { return &o.MemoryBase }},
	{Name: "rbd_mirror_memory_expected_fragmentation", Type: Float, Default: "0.15", Max: 1,
		About: "estimate of the share of memory lost to fragmentation",
		field: func(o *Options) any { return &o.MemoryExpectedFragmentation }},
	{Name: "rbd_mirror_memory_cache_min", Type: Size, Default: "128M",
		About: "bytes that caches may use at least",
		field: func(o *Options) any { return &o.MemoryCacheMin }},
	{Name: "rbd_mirror_memory_cache_resize_interval", Type: Duration, Default: "5",
		About: "time between changes of the caches' size",
		field: func(o *Options) any { return &o.MemoryCacheResizeInterval }},
	{Name: "rbd_mirror_memory_cache_autotune_interval", Type: Duration, Default: "30",
		About: "time between new distributions of memory among caches",
		field: func(o *Options) any { return &o.MemoryCacheAutotuneInterval }},
	{Name: "rbd_mirroring_resync_after_disconnect", Type: Bool, Default: "false",
		About: "sync an image anew after the primary dropped it for lagging",
		field: func(o *Options) any { return &o.ResyncAfterDisconnect }},
	{Name: "rbd_mirroring_delete_delay", Type: Duration, Default: "0",
		About: "how long a deleted image stays in the trash here",
		field: func(o *Options) any { return &o.DeleteDelay }},
	{Name: "rbd_mirroring_replay_delay", Type: Duration, Default: "0",
		About: "how far replay stays behind the primary on purpose",
		field: func(o *Options) any { return &o.ReplayDelay }},
	{Name: "rbd_blocklist_on_break_lock", Aliases: []string{"rbd_blacklist_on_break_lock"}, Type: Bool, Default: "true",
		About: "blocklist the former owner when its lock is broken",
		field: func(o *Options) any { return &o.BlocklistOnBreakLock }},
	{Name: "rbd_blocklist_expire_seconds", Aliases: []string{"rbd_blacklist_expire_seconds"}, Type: Duration, Default: "0",
		About: "how long a blocklist entry lives; 0: the OSDs' default",
		field: func(o *Options) any { return &o.BlocklistExpire }},
	{Name: "rbd_concurrent_management_ops", Type: Uint, Default: "10", Min: 1,
		About: "operations in flight of one sync, deletion or resize",
		field: func(o *Options) any { return &o.ConcurrentManagementOps }},
	{Name: "rbd_request_timed_out_seconds", Type: Duration, Default: "30",
		About: "time before a request to an image's lock owner is given up",
		field: func(o *Options) any { return &o.RequestTimedOut }},
	{Name: "rbd_default_data_pool", Type: String, Default: "",
		About: "data pool of new local images; empty: the pool itself",
		field: func(o *Options) any { return &o.DefaultDataPool }},
	{Name: "rbd_journal_order", Type: Uint, Default: "24", Min: 12, Max: 26,
		About: "log2 of the size of a local image's journal objects",
		field: func(o *Options) any { return &o.JournalOrder }},
	{Name: "rbd_journal_splay_width", Type: Uint, Default: "4", Min: 1,
		About: "journal objects of a local image that are written in turn",
		field: func(o *Options) any { return &o.JournalSplayWidth }},
	{Name: "rbd_journal_pool", Type: String, Default: "",
		About: "pool of local images' journals; empty: the pool itself",
		field: func(o *Options) any { return &o.JournalPool }},
	{Name: "rbd_journal_max_payload_bytes", Type: Size, Default: "16384",
		About: "bytes of payload after which a journal entry is split",
		field: func(o *Options) any { return &o.JournalMaxPayloadBytes }},
	{Name: "rbd_journal_max_concurrent_object_sets", Type: Uint, Default: "0",
		About: "object sets that a journal's client may lag before it is disconnected; 0: any",
		field: func(o *Options) any { return &o.JournalMaxConcurrentObjectSets }},
	{Name: "rbd_move_to_trash_on_remove_expire_seconds", Type: Duration, Default: "0",
		About: "protection of deleted images in the trash",
		field: func(o *Options) any { return &o.MoveToTrashExpire }},
}

// wardenTable describes our own options.
var wardenTable = []Option{
	{Name: "rbd_warden_workers", Type: Uint, Default: "0", Max: 64,
		About: "worker processes of this daemon; 0: as many as the host's cores suggest (1 to 4)",
		field: func(o *Options) any { return &o.Warden.Workers }},
	{Name: "rbd_warden_control_socket", Type: String, Default: "$run_dir/$cluster-$name.$pid.warden.sock",
		About: "unix socket for the command line of rbd-warden; empty: none",
		field: func(o *Options) any { return &o.Warden.ControlSocket }},
	{Name: "rbd_warden_http_address", Type: String, Default: "",
		About: "HOST:PORT of the status page and of metrics; empty: none",
		field: func(o *Options) any { return &o.Warden.HTTPAddress }},
	{Name: "rbd_warden_bind_addr", Type: String, Default: "",
		About: "HOST or HOST:PORT where workers listen to those of other daemons, worker N at PORT + N; empty: the address that reaches the cluster, any port",
		field: func(o *Options) any { return &o.Warden.BindAddress }},
	{Name: "rbd_warden_bytes_in_flight", Type: Size, Default: "256M", Min: 1 << 20,
		About: "bytes of journal data that a worker holds at most",
		field: func(o *Options) any { return &o.Warden.BytesInFlight }},
	{Name: "rbd_warden_image_bytes_in_flight", Type: Size, Default: "32M", Min: 1 << 20,
		About: "bytes of journal data that one image holds at most",
		field: func(o *Options) any { return &o.Warden.ImageBytes }},
	{Name: "rbd_warden_replay_bytes_per_second", Type: Size, Default: "0",
		About: "bytes of journal data that the daemon replays a second at most; 0: no limit",
		field: func(o *Options) any { return &o.Warden.ReplayRate }},
	{Name: "rbd_warden_sync_bytes_per_second", Type: Size, Default: "0",
		About: "bytes that the daemon reads a second at most in first copies and re-syncs; 0: no limit",
		field: func(o *Options) any { return &o.Warden.SyncRate }},
	{Name: "rbd_warden_worker_memory_limit", Type: Size, Default: "0",
		About: "bytes of memory at which a worker is killed and started again; 0: derived from rbd_mirror_memory_target",
		field: func(o *Options) any { return &o.Warden.WorkerMemoryLimit }},
	{Name: "rbd_warden_start_timeout", Type: Duration, Default: "300", Min: 1,
		About: "time in which a worker must get ready",
		field: func(o *Options) any { return &o.Warden.StartTimeout }},
	{Name: "rbd_warden_stop_timeout", Type: Duration, Default: "30", Min: 0.1,
		About: "time that a worker has to stop before it is killed",
		field: func(o *Options) any { return &o.Warden.StopTimeout }},
	{Name: "rbd_warden_heartbeat_interval", Type: Duration, Default: "1", Min: 0.01,
		About: "time between a worker's heartbeats",
		field: func(o *Options) any { return &o.Warden.HeartbeatInterval }},
	{Name: "rbd_warden_heartbeat_timeout", Type: Duration, Default: "15", Min: 0.1,
		About: "silence after which a worker is killed and started again",
		field: func(o *Options) any { return &o.Warden.HeartbeatTimeout }},
	{Name: "rbd_warden_restart_min", Type: Duration, Default: "0.2", Min: 0.001,
		About: "delay of the first restart; it doubles with each further one",
		field: func(o *Options) any { return &o.Warden.RestartMin }},
	{Name: "rbd_warden_restart_max", Type: Duration, Default: "30", Min: 0.001,
		About: "longest delay of a restart",
		field: func(o *Options) any { return &o.Warden.RestartMax }},
	{Name: "rbd_warden_restart_intensity", Type: Uint, Default: "10", Min: 1,
		About: "restarts within the window after which something is parked",
		field: func(o *Options) any { return &o.Warden.RestartIntensity }},
	{Name: "rbd_warden_restart_window", Type: Duration, Default: "300", Min: 0.001,
		About: "window of rbd_warden_restart_intensity",
		field: func(o *Options) any { return &o.Warden.RestartWindow }},
	{Name: "rbd_warden_parked_retry", Type: Duration, Default: "60", Min: 0.001,
		About: "time between attempts with what is parked",
		field: func(o *Options) any { return &o.Warden.ParkedRetry }},
	{Name: "rbd_warden_osd_timeout", Type: Duration, Default: "30", Min: 1,
		About: "time after which an operation on an OSD is given up",
		field: func(o *Options) any { return &o.Warden.OSDTimeout }},
	{Name: "rbd_warden_mon_timeout", Type: Duration, Default: "30", Min: 1,
		About: "time after which a command to the monitors is given up",
		field: func(o *Options) any { return &o.Warden.MonTimeout }},
	{Name: "rbd_warden_connect_timeout", Type: Duration, Default: "30", Min: 1,
		About: "time after which an attempt to connect to a cluster is given up",
		field: func(o *Options) any { return &o.Warden.ConnectTimeout }},
	{Name: "rbd_warden_balance_load", Type: Bool, Default: "true",
		About: "even out the workers' measured loads, too, when all have as many images as the others",
		field: func(o *Options) any { return &o.Warden.BalanceLoad }},
	{Name: "rbd_warden_resync_in_place", Type: Bool, Default: "true",
		About: "keep the old copy in a re-sync and copy what differs, instead of everything",
		field: func(o *Options) any { return &o.Warden.ResyncInPlace }},
	{Name: "rbd_warden_inject_no_budget", Type: Bool, Default: "false",
		About: "for tests: let images hold any number of bytes, whatever the bounds are",
		field: func(o *Options) any { return &o.Warden.InjectNoBudget }},
	{Name: "rbd_warden_stall_report", Type: Duration, Default: "90", Min: 0.1,
		About: "time without progress after which an image is reported; longer than the timeouts of operations",
		field: func(o *Options) any { return &o.Warden.StallReport }},
	{Name: "rbd_warden_stall_restart", Type: Duration, Default: "300", Min: 0.1,
		About: "time without progress after which an image is started again",
		field: func(o *Options) any { return &o.Warden.StallRestart }},
	{Name: "rbd_warden_stall_grace", Type: Duration, Default: "60", Min: 0.1,
		About: "time that cancelled operations of an image have to end, before they are let go of",
		field: func(o *Options) any { return &o.Warden.StallGrace }},
	{Name: "rbd_warden_inject_panic", Type: String, Default: "",
		About: "for tests: POOL[/NAMESPACE]/IMAGE or global id of an image whose actor panics once after it has replayed something; =N: so often",
		field: func(o *Options) any { return &o.Warden.InjectPanic }},
}
