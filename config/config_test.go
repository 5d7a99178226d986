package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// host is a host with some files.
func host(files map[string]string, pairs ...string) Host {
	return Host{
		Name: "h1", PID: "77", Home: "/root", Env: env(pairs...),
		ReadFile: func(p string) ([]byte, error) {
			data, ok := files[p]
			switch {
			case !ok:
				return nil, fmt.Errorf("open %s: %w", p, syscall.ENOENT)
			case data == "secret":
				return nil, fmt.Errorf("open %s: %w", p, syscall.EACCES)
			}
			return []byte(data), nil
		},
	}
}

func resolve(t *testing.T, args string, h Host) (Config, []string, error) {
	t.Helper()
	inv, err := ParseArgs(strings.Fields(args), h.Env)
	if err != nil {
		t.Fatal(err)
	}
	return Resolve(inv, h)
}

func TestResolveFindsTheFile(t *testing.T) {
	const conf = "[global]\n"
	for _, c := range []struct {
		name, args    string
		files         map[string]string
		env           []string
		file, cluster string
	}{
		{"system", "", map[string]string{"/etc/ceph/ceph.conf": conf, "ceph.conf": conf}, nil, "/etc/ceph/ceph.conf", "ceph"},
		{"home", "", map[string]string{"/root/.ceph/ceph.conf": conf, "ceph.conf": conf}, nil, "/root/.ceph/ceph.conf", "ceph"},
		{"here", "", map[string]string{"ceph.conf": conf}, nil, "ceph.conf", "ceph"},
		{"other cluster", "--cluster b", map[string]string{"/etc/ceph/b.conf": conf, "/etc/ceph/ceph.conf": conf}, nil, "/etc/ceph/b.conf", "b"},
		{"asked for", "-c /x/site-b.conf", map[string]string{"/x/site-b.conf": conf}, nil, "/x/site-b.conf", "site-b"},
		{"asked for, with a name", "-c /x/site-b.conf --cluster c", map[string]string{"/x/site-b.conf": conf}, nil, "/x/site-b.conf", "c"},
		{"asked for, without a suffix", "-c /x/conf", map[string]string{"/x/conf": conf}, nil, "/x/conf", "ceph"},
		{"a list", "-c /a.conf,/b.conf", map[string]string{"/b.conf": conf}, nil, "/b.conf", "b"},
		{"variables", "-c /x/$cluster-$name.conf --cluster q", map[string]string{"/x/q-client.admin.conf": conf}, nil, "/x/q-client.admin.conf", "q"},
		{"environment", "", map[string]string{"/e/k.conf": conf, "/etc/ceph/ceph.conf": conf}, []string{"CEPH_CONF", "/e/k.conf"}, "/e/k.conf", "k"},
		{"flag over environment", "-c /f.conf", map[string]string{"/e/k.conf": conf, "/f.conf": conf}, []string{"CEPH_CONF", "/e/k.conf"}, "/f.conf", "f"},
		{"none", "", nil, nil, "", "ceph"},
		{"not wanted", "--no-config-file", map[string]string{"/etc/ceph/ceph.conf": conf}, nil, "", "ceph"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, warnings, err := resolve(t, c.args, host(c.files, c.env...))
			if err != nil {
				t.Fatal(err)
			}
			if got.ConfFile != c.file || got.Cluster != c.cluster {
				t.Errorf("got %q and cluster %q, want %q and %q", got.ConfFile, got.Cluster, c.file, c.cluster)
			}
			if c.name == "none" && len(warnings) != 1 {
				t.Errorf("warnings %q, want one", warnings)
			}
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	for _, c := range []struct{ name, args, conf, want string }{
		{"missing file", "-c /gone.conf", "", "unable to open config file from search list /gone.conf"},
		{"unreadable file", "-c /s.conf", "", "permission denied"},
		{"broken file", "", "[global\n", "/etc/ceph/ceph.conf:1:"},
		{"loop", "--pid-file $pid_file", "", "pid_file needs itself"},
		{"no truth", "--log-to-file=maybe", "", "log_to_file"},
		{"level", "--debug-rbd-mirror 200", "", "debug_rbd_mirror"},
		{"mode", "--admin-socket-mode 999", "", "admin_socket_mode"},
		{"own option", "", "[client]\nrbd warden workers = 65\n", "rbd_warden_workers"},
	} {
		files := map[string]string{"/s.conf": "secret", "/etc/ceph/ceph.conf": c.conf}
		_, _, err := resolve(t, c.args, host(files))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if c.name == "missing file" && !errors.Is(err, ErrNoFile) {
			t.Errorf("%v is no ErrNoFile", err)
		}
	}
}

func TestResolveProcess(t *testing.T) {
	conf := `
[global]
run dir = /run/$cluster
log file = /logs/$name.log
pid file = /global.pid
log to stderr = true
[client]
pid-file = /client.pid
[client.rbd-mirror.a]
rbd warden workers = 3
rbd_warden_control_socket = $run_dir/w-$id.sock
debug rbd mirror = 15/20
`
	files := map[string]string{"/etc/ceph/ceph.conf": conf}
	plain := Process{
		RunDir: "/run/ceph", LogFile: "/logs/client.admin.log", PIDFile: "/client.pid", LogToStderr: true, ErrToStderr: true,
		AdminSocket: "/run/ceph/ceph-client.admin.77.1.asok", ControlSocket: "/run/ceph/ceph-client.admin.77.warden.sock",
	}
	mirror := plain
	mirror.LogFile, mirror.AdminSocket = "/logs/client.rbd-mirror.a.log", "/run/ceph/ceph-client.rbd-mirror.a.77.1.asok"
	mirror.ControlSocket, mirror.LogLevel = "/run/ceph/w-rbd-mirror.a.sock", 15
	cmdline := mirror
	cmdline.PIDFile, cmdline.SetUser, cmdline.Foreground, cmdline.AdminSocketMode = "/cmd.pid", "ceph", true, 0o660
	debug := mirror
	debug.Foreground, debug.LogFile = true, ""
	container := plain
	container.LogFile, container.LogPrefix, container.LogToStderr = "", "debug ", true
	none := Process{
		RunDir: "/var/run/ceph", LogFile: "/var/log/ceph/ceph-client.admin.log", ErrToStderr: true,
		AdminSocket:   "/var/run/ceph/ceph-client.admin.77.1.asok",
		ControlSocket: "/var/run/ceph/ceph-client.admin.77.warden.sock",
	}
	for _, c := range []struct {
		name  string
		args  []string
		files map[string]string
		want  Process
		own   Settings
	}{
		{"no file", nil, nil, none, Settings{}},
		{"file", nil, files, plain, Settings{}},
		{"own section", []string{"--id", "rbd-mirror.a"}, files, mirror,
			Settings{"rbd_warden_workers": "3", "rbd_warden_control_socket": "/run/ceph/w-rbd-mirror.a.sock"}},
		{"command line", []string{"-f", "--id", "rbd-mirror.a", "--pid-file", "/cmd.pid", "--setuser", "ceph",
			"--admin-socket-mode", "660", "--rbd-warden-workers=2"}, files, cmdline,
			Settings{"rbd_warden_workers": "2", "rbd_warden_control_socket": "/run/ceph/w-rbd-mirror.a.sock"}},
		{"debug", []string{"-d", "--id", "rbd-mirror.a"}, files, debug,
			Settings{"rbd_warden_workers": "3", "rbd_warden_control_socket": "/run/ceph/w-rbd-mirror.a.sock"}},
		{"defaults are weakest", []string{"--default-log-to-file=false", "--default-log-stderr-prefix=debug ",
			"--default-log-to-stderr=false"}, files, container, Settings{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := host(c.files)
			inv, err := ParseArgs(c.args, h.Env)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := Resolve(inv, h)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got.Process); d != "" {
				t.Error("(-want +got)", d)
			}
			if d := cmp.Diff(c.own, got.Own); d != "" {
				t.Error("own options (-want +got)", d)
			}
			for name := range got.Librados() {
				if strings.HasPrefix(name, "rbd_warden") || strings.HasPrefix(name, "log_") || ofProcess[name] {
					t.Errorf("librados would get %s", name)
				}
			}
		})
	}
}

func TestConfigGoesThroughJSON(t *testing.T) {
	c, _, err := resolve(t, "--id x --key AQsecret== --rbd-mirror-journal-poll-age 1 --rbd-warden-workers 2 --default-a b",
		host(nil))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back Config
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(c, back); d != "" {
		t.Error("(-want +got)", d)
	}
	if back.Librados()["key"] != "AQsecret==" || back.Librados()["rbd_mirror_journal_poll_age"] != "1" {
		t.Errorf("overrides are lost: %v", back.Librados())
	}
	for _, s := range []string{c.String(), fmt.Sprint(c), fmt.Sprintf("%v", &c)} {
		if strings.Contains(s, "AQsecret") {
			t.Errorf("the key shows in %s", s)
		}
	}
	o, err := Load(back.Getter(from(Settings{"rbd_mirror_journal_poll_age": "1.000000", "rbd_warden_workers": "9"})))
	if err != nil || o.Warden.Workers != 2 || o.JournalPollAge.Seconds() != 1 {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestResolvePatternForAnyProcess(t *testing.T) {
	h := host(nil)
	h.PID = "*"
	c, _, err := resolve(t, "", h)
	if err != nil || c.Process.ControlSocket != "/var/run/ceph/ceph-client.admin.*.warden.sock" {
		t.Errorf("got %q, %v", c.Process.ControlSocket, err)
	}
}
