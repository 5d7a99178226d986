package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func samples() []Sample {
	var all []Sample
	for i, seconds := range []float64{1, 3, 2} {
		all = append(all,
			Sample{Case: "drain/x", Side: Ours, Round: i, Values: map[string]float64{"seconds": seconds}},
			Sample{Case: "drain/x", Side: Upstream, Round: i, Values: map[string]float64{"seconds": 20 * seconds, "cpu": 8}})
	}
	return append(all, Sample{Case: "drain/y", Side: Plain, Values: map[string]float64{"seconds": 0.5}})
}

func TestRows(t *testing.T) {
	all := Rows(samples(), []string{"drain/y", "drain/x"})
	if len(all) != 3 || all[0].Case != "drain/y" || all[1].Metric.Name != "seconds" || all[2].Metric.Name != "cpu" {
		t.Fatalf("%+v", all)
	}
	if want := (Summary{Median: 2, Least: 1, Most: 3, Samples: 3}); all[1].Sides[Ours] != want {
		t.Errorf("%+v, want %+v", all[1].Sides[Ours], want)
	}
	if ratio, ok := all[1].Ratio(); !ok || ratio != 20 {
		t.Errorf("ratio %v, %v", ratio, ok)
	}
	for _, r := range []Row{all[0], all[2]} {
		if ratio, ok := r.Ratio(); ok {
			t.Errorf("ratio %v of %+v, which lacks a side", ratio, r)
		}
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{0, 10, 20, 30, 40}
	for share, want := range map[float64]float64{0: 0, 0.5: 20, 0.6: 24, 0.99: 39.6, 1: 40} {
		if got := quantile(values, share); got < want-1e-9 || got > want+1e-9 {
			t.Errorf("quantile %v is %v, want %v", share, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(Table(Rows(samples(), []string{"drain/x", "drain/y"}))), "\n")
	if len(lines) != 5 {
		t.Fatalf("%q", lines)
	}
	for _, line := range lines[1:] {
		if len([]rune(line)) != len([]rune(lines[0])) {
			t.Errorf("ragged: %q", line)
		}
	}
	if got := strings.Fields(lines[2]); !slices.Equal(got[:14], strings.Fields("| drain/x | seconds | s | 2.00 | 40.0 | | | 20.0")[:14]) {
		t.Errorf("%q", got)
	}
	for v, want := range map[float64]string{0: "0", 1234.5: "1234", 12.345: "12.3", 1.2345: "1.23", 0.012345: "0.0123"} {
		if got := shown(v, true); got != want {
			t.Errorf("%v is shown as %s, want %s", v, got, want)
		}
	}
}

func TestSelect(t *testing.T) {
	cases := []Case{{Name: "drain/a"}, {Name: "drain/b"}, {Name: "lag/a"}}
	for list, want := range map[string]string{
		"": "drain/a drain/b lag/a", "all": "drain/a drain/b lag/a", "drain": "drain/a drain/b", "lag,drain/b": "drain/b lag/a", "none": "",
	} {
		got, err := Select(cases, list)
		if err != nil || strings.Join(names(got), " ") != want {
			t.Errorf("%q picks %v, %v; want %s", list, names(got), err, want)
		}
	}
	for _, list := range []string{"drai", "lag/b", "drain,x"} {
		if got, err := Select(cases, list); err == nil {
			t.Errorf("%q picks %v", list, names(got))
		}
	}
}

func TestOrder(t *testing.T) {
	all := []Side{Ours, Upstream, Plain}
	if got := order(all, 0); !slices.Equal(got, all) {
		t.Errorf("%v", got)
	}
	if got := order(all, 1); got[0] != Plain || got[2] != Ours || all[0] != Ours {
		t.Errorf("%v of %v", got, all)
	}
}

func TestRecords(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b/one", "a/two", "c"} {
		r := Record{Case: name, Scale: Small, Began: time.Unix(1e9, 0).UTC(), Samples: samples()}
		for i := range r.Samples {
			r.Samples[i].Case = name
		}
		if err := r.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(dir, []string{"c", "b/one"})
	if err != nil || len(got) != 3 || got[0].Case != "c" || got[1].Case != "b/one" || got[2].Case != "a/two" {
		t.Fatalf("%+v, %v", got, err)
	}
	if len(rows(got)) != 6 {
		t.Errorf("%+v", rows(got))
	}
	if err := os.WriteFile(file(dir, "d"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, nil); err == nil || !strings.Contains(err.Error(), "d.json") {
		t.Errorf("a strange file: %v", err)
	}
}

// TestCPUCountsDeadChildren lets a child use up processor time and end: it must not be lost.
func TestCPUCountsDeadChildren(t *testing.T) {
	before := cpuOf(os.Getpid())
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	child := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if used := cpuOf(os.Getpid()) - before; used < child-4*tick || child < 5*tick {
		t.Errorf("%v were counted, the child used %v", used, child)
	}
}

func TestMemoryOfThisProcess(t *testing.T) {
	resident, peak := residentOf(os.Getpid()), peakOf(os.Getpid())
	if resident < mib || peak < resident {
		t.Errorf("%d bytes resident, %d at most", resident, peak)
	}
	if twice := peakOf(os.Getpid(), os.Getpid()); twice < 2*peak {
		t.Errorf("%d bytes of two processes of %d", twice, peak)
	}
}

func TestExtentsStayBeforeTheMarker(t *testing.T) {
	v := &Volume{size: 8 * mib}
	for _, size := range []int{4 * kib, 64 * kib, 4 * mib} {
		for _, e := range slices.Concat(v.scatter(500, size, 7), v.sequence(500, size)) {
			if e.at%uint64(size) != 0 || e.at+uint64(e.size) > v.size-block {
				t.Fatalf("%+v of %d", e, size)
			}
		}
	}
}

func TestPlots(t *testing.T) {
	all := plots(Rows(samples(), []string{"drain/x", "drain/y"}))
	if len(all) != 2 || len(all["seconds"].Rows) != 2 || len(all["cpu"].Rows) != 1 {
		t.Fatalf("%+v", all)
	}
	svg := all["seconds"].SVG()
	d := xml.NewDecoder(strings.NewReader(svg))
	bars := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" && slices.Contains(e.Attr, xml.Attr{Name: xml.Name{Local: "height"}, Value: "11"}) {
			bars++
		}
	}
	if bars != 3 || !strings.Contains(svg, "(÷ 20.0)") {
		t.Errorf("%d bars in %s", bars, svg)
	}
	if svg := (Plot{Title: "none", Rows: []Row{{Case: "x"}}}).SVG(); strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Error(svg)
	}
}
