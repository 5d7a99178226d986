package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFile(t *testing.T) {
	for _, c := range []struct {
		name, file string
		want       map[string]Settings
	}{
		{"empty", "", map[string]Settings{}},
		{"a plain one", "[global]\nfsid = 1-2\nmon host = [v2:1.1.1.1:3300,v1:1.1.1.1:6789]\n",
			map[string]Settings{"global": {"fsid": "1-2", "mon_host": "[v2:1.1.1.1:3300,v1:1.1.1.1:6789]"}}},
		{"no newline at the end", "[global]\na = b", map[string]Settings{"global": {"a": "b"}}},
		{"foreign line ends", "\xef\xbb\xbf[global]\r\na = b\r\n\r\n", map[string]Settings{"global": {"a": "b"}}},
		{"spelling of keys", "[global]\n log  file=1\nlog-to_stderr\t= 2\n  Key With Caps = 3\n",
			map[string]Settings{"global": {"log_file": "1", "log_to_stderr": "2", "Key_With_Caps": "3"}}},
		{"comments", "# one\n; two\n[global] # three\n  # four\na = b # five\nc = d; six\ne = \n",
			map[string]Settings{"global": {"a": "b", "c": "d", "e": ""}}},
		{"quotes", "[a]\nx = \"b # c ; d\"\ny = 'it is \"so\"' # comment\nz = in \"the middle\"\nw=\"  trimmed \"\n",
			map[string]Settings{"a": {"x": "b # c ; d", "y": `it is "so"`, "z": `in "the middle"`, "w": "trimmed"}}},
		{"escapes", "[a]\nx = a\\#b\\;c\ny = \"q\\\"q\"\nz = tail\\\\\nw = c\\:d\n",
			map[string]Settings{"a": {"x": "a#b;c", "y": `q"q`, "z": `tail\`, "w": "c:d"}}},
		{"continued lines", "[a]\nx = 1, \\\n  2, \\\n3\n# a comment \\\ny = 4\n",
			map[string]Settings{"a": {"x": "1,   2, 3", "y": "4"}}},
		{"the later wins", "[global]\na = 1\nb = 1\na = 2\n[client]\na=3\n[global]\nb = 4\n",
			map[string]Settings{"global": {"a": "2", "b": "4"}, "client": {"a": "3"}}},
		{"section names", "[client.rbd-mirror.a]\na=1\n[ spaced ]\nb=2\n",
			map[string]Settings{"client.rbd-mirror.a": {"a": "1"}, "spaced": {"b": "2"}}},
		{"equals signs in values", "[a]\nx = b=c==\n", map[string]Settings{"a": {"x": "b=c=="}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := ParseFile("x.conf", []byte(c.file))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, f.sections); d != "" {
				t.Error("(-want +got)", d)
			}
		})
	}
}

func TestParseFileRefuses(t *testing.T) {
	for _, c := range []struct {
		file string
		line int
		want string
	}{
		{"a = b\n", 1, "outside of a section"},
		{"\n[global\na = b\n", 2, "closing bracket"},
		{"[]\n", 1, "empty section name"},
		{"[a] b\n", 1, "left over"},
		{"[a]\n\nword\n", 3, "neither a section nor"},
		{"[a]\n= x\n", 2, "without a key"},
		{"[a]\nx = \"open\ny = z\n", 2, "closing \""},
		{"[a]\nx = 'b' c\n", 2, "left over"},
		{"[a]\nx = 1\\\ny = \xff\n", 2, "UTF-8"},
		{"[a]\nx # y = 1\n", 2, "is no key"},
	} {
		_, err := ParseFile("x.conf", []byte(c.file))
		var fe *FileError
		if !errors.As(err, &fe) {
			t.Errorf("%q: got error %v, want a FileError", c.file, err)
			continue
		}
		if fe.Line != c.line || !strings.Contains(fe.Text, c.want) || !strings.HasPrefix(err.Error(), "x.conf:") {
			t.Errorf("%q: got %v, want line %d and %q", c.file, err, c.line, c.want)
		}
	}
}

func TestLookupPrefersTheNarrowSection(t *testing.T) {
	f, err := ParseFile("x", []byte("[global]\na=1\nb=1\nc=1\n[client]\na=2\nb=2\n[client.x]\na=3\n[client.y]\nc=9\n"))
	if err != nil {
		t.Fatal(err)
	}
	sections := SectionsOf(Entity{"client", "x"})
	for name, want := range map[string]string{"a": "3", "b": "2", "c": "1"} {
		if got, ok := f.Lookup(name, sections...); !ok || got != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, ok, want)
		}
	}
	if _, ok := f.Lookup("d", sections...); ok {
		t.Error("found what is not there")
	}
	var none *File
	if _, ok := none.Lookup("a", "global"); ok {
		t.Error("found something in no file")
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("[global]\na = 'b' # c\nd = e\\\n f\n"))
	f.Add([]byte("[a]\n\\"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := ParseFile("f", data)
		if (file == nil) == (err == nil) {
			t.Errorf("file %v and error %v", file, err)
		}
	})
}

func TestExpand(t *testing.T) {
	options := map[string]string{
		"run_dir": "/run/$cluster", "loop_a": "$loop_b", "loop_b": "x${loop_a}", "self": "$self", "plain": "p",
	}
	sc := Scope{
		Cluster: "backup", Entity: Entity{"client", "rbd-mirror.a"}, Host: "h1", PID: "77", CCTID: 1, Home: "/root",
		Option: func(n string) (string, bool) { v, ok := options[n]; return v, ok },
	}
	for _, c := range []struct{ in, want string }{
		{"", ""}, {"no variables", "no variables"},
		{"/var/log/ceph/$cluster-$name.log", "/var/log/ceph/backup-client.rbd-mirror.a.log"},
		{"$run_dir/$cluster-$name.$pid.$cctid.asok", "/run/backup/backup-client.rbd-mirror.a.77.1.asok"},
		{"$type.$id on $host at $home, $num", "client.rbd-mirror.a on h1 at /root, rbd-mirror.a"},
		{"${cluster}x ${plain}", "backupx p"},
		{"$clusterx", "$clusterx"}, {"${clusterx}", "${clusterx}"}, {"$$cluster", "$backup"},
		{"100$ $ ${ ${} ${cluster $9", "100$ $ ${ ${} ${cluster $9"},
	} {
		if got, err := sc.Expand(c.in); err != nil || got != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{"$loop_a", "${self}"} {
		if got, err := sc.Expand(in); err == nil || !strings.Contains(err.Error(), "needs itself") {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
	if got, err := (Scope{}).Expand("$run_dir"); err != nil || got != "$run_dir" {
		t.Errorf("without options: got %q, %v", got, err)
	}
}
