package memory

import (
	"os"
	"path/filepath"
	"testing"
)

func TestGovernor(t *testing.T) {
	const full, limit = 1600, 1000
	easy, uneasy, tight := Pressure{Limit: limit, Resident: 100}, Pressure{Stall: 2, Limit: limit}, Pressure{Stall: 10, Limit: limit}
	for name, c := range map[string]struct {
		steps []Pressure
		want  []int64
	}{
		"nothing":               {[]Pressure{easy, easy}, []int64{1600, 1600}},
		"host pressure":         {[]Pressure{tight, tight, tight, tight, tight, tight}, []int64{800, 400, 200, 100, 100, 100}},
		"it stays while uneasy": {[]Pressure{tight, uneasy, uneasy}, []int64{800, 800, 800}},
		"it recovers":           {[]Pressure{tight, tight, easy, easy, easy, easy, easy, easy, easy}, []int64{800, 400, 600, 800, 1000, 1200, 1400, 1600, 1600}},
		"its own memory":        {[]Pressure{{Resident: 750, Limit: limit}, {Resident: 850, Limit: limit}, {Resident: 749, Limit: limit}}, []int64{1600, 800, 1000}},
		"no limit":              {[]Pressure{{Resident: 1 << 40}}, []int64{1600}},
	} {
		g := NewGovernor(full)
		for i, p := range c.steps {
			if got := g.Step(p); got != c.want[i] {
				t.Errorf("%s, step %d: %d, want %d", name, i, got, c.want[i])
			}
		}
	}
}

func TestMeasure(t *testing.T) {
	const none = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=90.00 avg60=0.00 avg300=0.00 total=0\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  float64
	}{
		"the host":          {map[string]string{"proc/pressure/memory": "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\n"}, 12.5},
		"only full":         {map[string]string{"proc/pressure/memory": none}, 0},
		"its own group":     {map[string]string{"proc/pressure/memory": none, "proc/self/cgroup": "0::/a/worker-0\n", "sys/fs/cgroup/a/worker-0/memory.pressure": "some avg10=33.00 avg60=1.00\n"}, 33},
		"damaged":           {map[string]string{"proc/pressure/memory": "some avg10=x\nsome\n"}, 0},
		"an older kernel":   {nil, 0},
		"less than nothing": {map[string]string{"proc/pressure/memory": "some avg10=-1 \n"}, 0},
	} {
		root := t.TempDir()
		for file, text := range c.files {
			p := filepath.Join(root, file)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if p := measure(root, 7); p.Stall != c.want || p.Limit != 7 {
			t.Errorf("%s: %+v, want a stall of %v", name, p, c.want)
		}
	}
	if p := Measure(0); p.Resident < 1<<20 {
		t.Errorf("this process has %d bytes resident", p.Resident)
	}
}

func TestBudgetFor(t *testing.T) {
	const m = int64(1 << 20)
	for _, c := range []struct{ want, limit, is int64 }{
		{256 * m, 0, 256 * m}, {256 * m, 4096 * m, 256 * m}, {256 * m, 512 * m, 96 * m}, {256 * m, 128 * m, 4 * m},
	} {
		if got := BudgetFor(c.want, c.limit); got != c.is {
			t.Errorf("of %d, with a limit of %d: %d, want %d", c.want, c.limit, got, c.is)
		}
	}
}
