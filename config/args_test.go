package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestParseArgs(t *testing.T) {
	daemonize := Settings{"daemonize": "false"}
	for _, c := range []struct {
		name string
		args string
		env  []string
		want Invocation
	}{
		{"nothing", "", nil, Invocation{}},
		{"systemd's command line", "-f --cluster backup --id rbd-mirror.a --setuser ceph --setgroup ceph", nil, Invocation{
			Cluster: "backup", Entity: Entity{"client", "rbd-mirror.a"}, Foreground: true,
			Overrides: Settings{"daemonize": "false", "setuser": "ceph", "setgroup": "ceph"},
		}},
		{"values behind an equals sign", "--cluster=backup --conf=/x.conf --name=client.a=b --log-file=/l=1", nil, Invocation{
			Cluster: "backup", ConfFiles: "/x.conf", Entity: Entity{"client", "a=b"},
			Overrides: Settings{"log_file": "/l=1"},
		}},
		{"one letter", "-c x -n mgr.y -m 1.2.3.4 -k /k -K /f -i z", nil, Invocation{
			ConfFiles: "x", Entity: Entity{"mgr", "z"},
			Overrides: Settings{"mon_host": "1.2.3.4", "keyring": "/k", "keyfile": "/f"},
		}},
		{"one letter and an equals sign", "-n=client.q", nil, Invocation{Entity: Entity{"client", "q"}}},
		{"debug", "-d", nil, Invocation{Foreground: true, Stderr: true, Overrides: Settings{
			"daemonize": "false", "log_file": "", "log_to_stderr": "true", "err_to_stderr": "true", "log_to_syslog": "false",
		}}},
		{"dashes and underscores", "--rbd_mirror-journal_commit-age 3 --pid_file p --no_mon_config", nil, Invocation{
			NoMonConfig: true,
			Overrides:   Settings{"rbd_mirror_journal_commit_age": "3", "pid_file": "p"},
		}},
		{"Rook's command line", "--keyring=/etc/ceph/keyring-store/keyring --default-log-to-stderr=true --default-err-to-stderr=true " +
			"--default-mon-cluster-log-to-stderr=true --default-log-stderr-prefix=debug --default-log-to-file=false " +
			"--foreground --name=client.rbd-mirror.a", nil, Invocation{
			Foreground: true, Entity: Entity{"client", "rbd-mirror.a"},
			Overrides: Settings{"keyring": "/etc/ceph/keyring-store/keyring", "daemonize": "false"},
			Defaults: Settings{"log_to_stderr": "true", "err_to_stderr": "true", "mon_cluster_log_to_stderr": "true",
				"log_stderr_prefix": "debug", "log_to_file": "false"},
		}},
		{"switches", "--log-to-stderr --err-to-stderr 0 --no-log-to-file --rbd-mirror-memory-autotune --cluster x", nil, Invocation{
			Cluster: "x",
			Overrides: Settings{"log_to_stderr": "true", "err_to_stderr": "0", "log_to_file": "false",
				"rbd_mirror_memory_autotune": "true"},
		}},
		{"a switch does not eat a word", "--log-to-stderr what", nil, Invocation{
			Overrides: Settings{"log_to_stderr": "true"}, Ignored: []string{"what"},
		}},
		{"options that nobody here knows", "--ms-type async --ms-thing --ms-number -5", nil, Invocation{
			Overrides: Settings{"ms_type": "async", "ms_thing": "true", "ms_number": "-5"},
		}},
		{"environment", "--keyring k3 -f", []string{"CEPH_KEYRING", "k1", "CEPH_ARGS", "  --keyring k2 --id e -m  1.1.1.1 "}, Invocation{
			Foreground: true, Entity: Entity{"client", "e"},
			Overrides: Settings{"keyring": "k3", "mon_host": "1.1.1.1", "daemonize": "false"},
		}},
		{"environment alone", "", []string{"CEPH_KEYRING", "k1"}, Invocation{Overrides: Settings{"keyring": "k1"}}},
		{"two dashes end options", "-f -- --id x", nil, Invocation{
			Foreground: true, Overrides: daemonize, Ignored: []string{"--id", "x"},
		}},
		{"help and version", "-h -v", nil, Invocation{Help: true, Version: true}},
		{"the later wins", "--id a --name client.b --id c --log-file 1 --log_file 2", nil, Invocation{
			Entity: Entity{"client", "c"}, Overrides: Settings{"log_file": "2"},
		}},
		{"unknown single letter", "-Z -xyz", nil, Invocation{Ignored: []string{"-Z", "-xyz"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseArgs(strings.Fields(c.args), env(c.env...))
			if err != nil {
				t.Fatal(err)
			}
			if c.want.Entity == (Entity{}) {
				c.want.Entity = DefaultEntity
			}
			if c.want.Overrides == nil {
				c.want.Overrides = Settings{}
			}
			if c.want.Defaults == nil {
				c.want.Defaults = Settings{}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error("(-want +got)", d)
			}
		})
	}
}

func TestParseArgsKeepsEmptyAndSpacedValues(t *testing.T) {
	got, err := ParseArgs([]string{"--log-file=", "--log-stderr-prefix", "debug ", "--pid-file", ""}, env())
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{"log_file": "", "log_stderr_prefix": "debug ", "pid_file": ""}
	if d := cmp.Diff(want, got.Overrides); d != "" {
		t.Error("(-want +got)", d)
	}
}

func TestParseArgsRefuses(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--conf", "--conf: requires an argument"},
		{"-c", "-c: requires an argument"},
		{"--keyring --id x", "--keyring: requires an argument"},
		{"--rbd-mirror-journal-commit-age", "requires an argument"},
		{"--name admin", `--name: "admin" is not of the form TYPE.ID`},
		{"--name client.", "is not of the form"},
		{"--name nobody.x", "is not of the form"},
		{"--cluster ../../etc/x", "is no name of a cluster"},
		{"--id=", "--id: must not be empty"},
		{"--foreground=1", "takes no value"},
		{"--default- x", "names no option"},
		{"--=x", "names no option"},
	} {
		_, err := ParseArgs(strings.Fields(c.args), env())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want %q", c.args, err, c.want)
		}
	}
	_, err := ParseArgs(nil, env("CEPH_ARGS", "--name x"))
	if err == nil || !strings.HasPrefix(err.Error(), "CEPH_ARGS: ") {
		t.Errorf("an error of CEPH_ARGS does not say so: %v", err)
	}
}

// Whatever is on a command line, there is an answer and no panic.
func FuzzParseArgs(f *testing.F) {
	for _, s := range []string{"-c x", "--conf=x", "--default-x=1", "--no-log-to-file", "- --", "--a\x00b -", "-n client.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		inv, err := ParseArgs(strings.Split(s, " "), env("CEPH_ARGS", s))
		if err == nil && inv.Entity.Type == "" {
			t.Error("no entity and no error")
		}
	})
}
