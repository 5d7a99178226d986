// Package layers asserts that imports point down the list of folders in the design, and nowhere else.
package layers

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rbdwarden/rbdwarden/"

// folder is a top-level folder and what its packages may import besides the standard library and each other.
type folder struct {
	name string
	// inside names the folders of this module, "*" for all below in the list.
	inside []string
	// outside names prefixes of other modules' packages, "*" for any.
	outside []string
}

// design is the table of the design document, top to bottom.
var design = []folder{
	{"test", []string{"*"}, []string{"*"}},
	{"cmd", []string{"*"}, []string{"*"}},
	{"web", []string{"report"}, []string{"*"}},
	{"actors", []string{"*"}, []string{"*"}},
	{"cluster", []string{"messages", "report", "rados", "proto", "ceph", "rhythm"}, []string{"*"}},
	{"supervision", []string{"messages", "report", "proto", "rhythm"}, []string{"*"}},
	{"mirror", []string{"ceph", "rados"}, nil},
	{"image", []string{"journal", "ceph", "rados", "messages", "rhythm"}, []string{"golang.org/x/sync/", "github.com/cespare/xxhash/"}},
	{"admin", nil, nil},
	{"replay", []string{"ceph", "messages"}, nil},
	{"journal", []string{"ceph", "rados", "messages", "rhythm"}, []string{"golang.org/x/sync/"}},
	{"config", nil, nil},
	{"messages", []string{"ceph", "report"}, nil},
	{"report", []string{"ceph"}, nil},
	{"proto", nil, []string{"google.golang.org/"}},
	{"rados", []string{"ceph"}, []string{"github.com/ceph/go-ceph/", "github.com/google/uuid", "golang.org/x/", "github.com/cespare/xxhash/"}},
	{"ceph", nil, nil},
	{"rhythm", nil, nil},
	{"lab", nil, nil},
}

// pkg is a package of this module and what it imports, tests apart.
type pkg struct {
	folder, path string
	imports      []string
}

// TestImportsPointDown fails for an import that the design does not allow, and for a folder that it does not know.
func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		at := slices.IndexFunc(design, func(f folder) bool { return f.name == p.folder })
		if at < 0 {
			t.Errorf("%s: folder %s has no place in the design's table", p.path, p.folder)
			continue
		}
		for _, imported := range p.imports {
			if why := refuse(at, imported); why != "" {
				t.Errorf("%s imports %s: %s", p.path, imported, why)
			}
		}
	}
}

// TestTheRulesRefuse keeps TestImportsPointDown honest: a rule that allowed everything would pass it.
func TestTheRulesRefuse(t *testing.T) {
	for _, c := range []struct {
		from, to string
		allowed  bool
	}{
		{"ceph", "fmt", true},
		{"ceph", module + "ceph/encoding", true},
		{"ceph", module + "rados", false},
		{"ceph", "github.com/google/uuid", false},
		{"replay", module + "rados", false},
		{"replay", module + "ceph/journal", true},
		{"journal", module + "image", false},
		{"actors", module + "image", true},
		{"actors", module + "lab", true},
		{"cmd", module + "test/harness", false},
		{"lab", "golang.org/x/sync/errgroup", false},
		{"report", module + "nowhere", false},
	} {
		at := slices.IndexFunc(design, func(f folder) bool { return f.name == c.from })
		if why := refuse(at, c.to); (why == "") != c.allowed {
			t.Errorf("%s importing %s: %q, want allowed %v", c.from, c.to, why, c.allowed)
		}
	}
}

// refuse says why the design's folder must not import a package, or nothing.
func refuse(at int, imported string) string {
	from := design[at]
	inner, ours := strings.CutPrefix(imported, module)
	if !ours {
		first, _, _ := strings.Cut(imported, "/")
		if !strings.Contains(first, ".") { // the standard library, and "C"
			return ""
		}
		for _, prefix := range from.outside {
			if prefix == "*" || strings.HasPrefix(imported, prefix) {
				return ""
			}
		}
		return from.name + " may not use it"
	}
	target, _, _ := strings.Cut(inner, "/")
	to := slices.IndexFunc(design, func(f folder) bool { return f.name == target })
	switch {
	case to < 0:
		return "folder " + target + " has no place in the design's table"
	case to == at || slices.Contains(from.inside, target):
		return ""
	case slices.Contains(from.inside, "*") && to > at:
		return ""
	}
	return from.name + " may import only " + strings.Join(from.inside, ", ")
}

// packages lists this module's packages.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-tags", "pacific", "-f", `{{.ImportPath}} {{join .Imports ","}}`, "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var found []pkg
	for line := range strings.Lines(string(out)) {
		path, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		inner := strings.TrimPrefix(path, module)
		top, _, _ := strings.Cut(inner, "/")
		found = append(found, pkg{folder: top, path: inner, imports: strings.FieldsFunc(imports, func(r rune) bool { return r == ',' })})
	}
	if len(found) < 10 {
		t.Fatalf("go list found only %d packages", len(found))
	}
	return found
}
