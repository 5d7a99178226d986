package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// from makes a getter of what a live connection would say.
func from(s Settings) func(string) (string, error) {
	return func(name string) (string, error) {
		if v, ok := s[name]; ok {
			return v, nil
		}
		return "", fmt.Errorf("get option %s: %w", name, syscall.ENOENT)
	}
}

func TestDefaults(t *testing.T) {
	o := Defaults()
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"commit age", o.JournalCommitAge, 5 * time.Second},
		{"syncs", o.ConcurrentImageSyncs, uint64(5)},
		{"deletions", o.ConcurrentImageDeletions, uint64(1)},
		{"policy", o.ImagePolicyType, "simple"},
		{"memory target", o.MemoryTarget, uint64(4 << 30)},
		{"memory base", o.MemoryBase, uint64(768 << 20)},
		{"fragmentation", o.MemoryExpectedFragmentation, 0.15},
		{"autotune", o.MemoryAutotune, true},
		{"resync", o.ResyncAfterDisconnect, false},
		{"migration throttle", o.ImagePolicyMigrationThrottle, 5 * time.Minute},
		{"workers", o.Warden.Workers, uint64(0)},
		{"restart", o.Warden.RestartMin, 200 * time.Millisecond},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
}

// The table is code; these are the mistakes that it invites.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	fields := map[any]string{}
	var o Options
	for _, opt := range Table() {
		for _, n := range append([]string{opt.Name}, opt.Aliases...) {
			if names[n] || n != Canonical(n) {
				t.Errorf("%s is there twice, or is no normal name", n)
			}
			names[n] = true
		}
		p := opt.field(&o)
		if other := fields[p]; other != "" {
			t.Errorf("%s and %s share a field", opt.Name, other)
		}
		fields[p] = opt.Name
		if opt.About == "" {
			t.Errorf("%s has no description", opt.Name)
		}
		kinds := map[Type]any{String: new(string), Bool: new(bool), Uint: new(uint64), Size: new(uint64), Float: new(float64), Duration: new(time.Duration)}
		if reflect.TypeOf(p) != reflect.TypeOf(kinds[opt.Type]) {
			t.Errorf("%s is a %v with a field of type %T", opt.Name, opt.Type, p)
		}
	}
	n := reflect.TypeFor[Options]().NumField() - 1 + reflect.TypeFor[Warden]().NumField()
	if len(fields) != n {
		t.Errorf("%d options for %d fields", len(fields), n)
	}
}

func TestLoad(t *testing.T) {
	o, err := Load(from(Settings{
		"rbd_mirror_journal_commit_age":     "0.250000",
		"rbd_mirror_concurrent_image_syncs": "7",
		"rbd_blacklist_expire_seconds":      "60",
		"rbd_mirror_memory_target":          "1073741824",
		"rbd_mirroring_delete_delay":        "90s",
		"rbd_mirror_memory_autotune":        "false",
		"rbd_mirror_image_policy_type":      "none",
		"rbd_default_data_pool":             "ec",
		"rbd_warden_bytes_in_flight":        "64Mi",
		"something_else":                    "ignored",
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.JournalCommitAge = 250 * time.Millisecond
	want.ConcurrentImageSyncs = 7
	want.BlocklistExpire = time.Minute
	want.MemoryTarget = 1 << 30
	want.DeleteDelay = 90 * time.Second
	want.MemoryAutotune = false
	want.ImagePolicyType = "none"
	want.DefaultDataPool = "ec"
	want.Warden.BytesInFlight = 64 << 20
	if o != want {
		t.Errorf("got %+v\nwant %+v", o, want)
	}
	// The newer name counts if both are there.
	o, err = Load(from(Settings{"rbd_blacklist_expire_seconds": "60", "rbd_blocklist_expire_seconds": "70"}))
	if err != nil || o.BlocklistExpire != 70*time.Second {
		t.Errorf("got %v, %v", o.BlocklistExpire, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"rbd_mirror_journal_commit_age", "soon", "no number of seconds"},
		{"rbd_mirror_journal_commit_age", "", "no number of seconds"},
		{"rbd_mirror_journal_commit_age", "-1", "must not be negative"},
		{"rbd_mirror_journal_commit_age", "NaN", "no number of seconds"},
		{"rbd_mirror_journal_commit_age", "1e300", "too large"},
		{"rbd_mirror_leader_heartbeat_interval", "0", "must be at least 1"},
		{"rbd_mirror_concurrent_image_deletions", "0", "must be at least 1"},
		{"rbd_mirror_concurrent_image_syncs", "-3", "no whole number"},
		{"rbd_mirror_concurrent_image_syncs", "3.5", "no whole number"},
		{"rbd_mirror_concurrent_image_syncs", "99999999999999999999", "no whole number"},
		{"rbd_mirror_memory_target", "4Q", "no unit"},
		{"rbd_mirror_memory_target", "4KB", "no unit"},
		{"rbd_mirror_memory_target", "99999999999E", "too large"},
		{"rbd_mirror_memory_autotune", "perhaps", "neither true nor false"},
		{"rbd_mirror_memory_expected_fragmentation", "1.5", "from 0 to 1"},
		{"rbd_mirror_memory_expected_fragmentation", "nan", "no number"},
		{"rbd_mirror_image_policy_type", "clever", "one of none, simple"},
		{"rbd_journal_order", "27", "from 12 to 26"},
	} {
		_, err := Load(from(Settings{c.name: c.value}))
		var ve *ValueError
		if !errors.As(err, &ve) || ve.Option != c.name || ve.Value != c.value || !strings.Contains(ve.Text, c.want) {
			t.Errorf("%s = %q: got %v, want %q", c.name, c.value, err, c.want)
		}
	}
	// All that is wrong is told at once.
	_, err := Load(from(Settings{"rbd_journal_order": "1", "rbd_mirroring_replay_delay": "x"}))
	for _, want := range []string{"rbd_journal_order", "rbd_mirroring_replay_delay"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
	// An error that is not "unknown" is no reason to take a default.
	broken := errors.New("connection lost")
	_, err = Load(func(string) (string, error) { return "", broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		in   string
		unit float64
		want uint64
	}{{"0", 1000, 0}, {"12", 1000, 12}, {"3K", 1000, 3000}, {"3k", 1024, 3072}, {"3Ki", 1000, 3072}, {"2M", 1024, 2 << 20},
		{"5 G", 1024, 5 << 30}, {"7B", 1024, 7}, {"1T", 1000, 1e12}, {"15E", 1024, 15 << 60}} {
		if got, err := parseNumber(c.in, c.unit); err != nil || got != c.want {
			t.Errorf("%s: got %d, %v, want %d", c.in, got, err, c.want)
		}
	}
	for in, want := range map[string]time.Duration{"5": 5 * time.Second, "5.000000": 5 * time.Second, "1.5s": 1500 * time.Millisecond,
		"2 min": 2 * time.Minute, "3h": 3 * time.Hour, "1 day": 24 * time.Hour, "20ms": 20 * time.Millisecond} {
		if got, err := parseDuration(in); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", in, got, err, want)
		}
	}
}

func TestWith(t *testing.T) {
	o, err := Defaults().With(Settings{"rbd_mirroring_replay_delay": "60", "rbd_blacklist_on_break_lock": "false", "rbd_cache": "false"})
	if err != nil {
		t.Fatal(err)
	}
	if o.ReplayDelay != time.Minute || o.BlocklistOnBreakLock || Defaults().ReplayDelay != 0 {
		t.Errorf("got %+v", o)
	}
	if _, err := Defaults().With(Settings{"rbd_mirroring_replay_delay": "x"}); err == nil {
		t.Error("no error")
	}
}
