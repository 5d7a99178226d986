package memory

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLimit(t *testing.T) {
	const g = int64(1 << 30)
	for name, c := range map[string]struct {
		plan Plan
		want int64
	}{
		"an operator who changes nothing":  {Plan{Target: 4 * g, Autotune: true, Workers: 1, Host: 64 * g}, 4 * g},
		"shared by the workers":            {Plan{Target: 4 * g, Autotune: true, Workers: 4, Host: 64 * g}, g},
		"never less than a worker needs":   {Plan{Target: 4 * g, Autotune: true, Workers: 16, Host: 64 * g}, MinWorker},
		"never more than half of the host": {Plan{Target: 4 * g, Autotune: true, Workers: 1, Host: 2 * g}, g},
		"the host comes before the need":   {Plan{Target: 4 * g, Autotune: true, Workers: 4, Host: 2 * g}, g / 4},
		"its own":                          {Plan{Own: 7, Target: 4 * g, Autotune: true, Workers: 4, Host: 2 * g}, 7},
		"its own without autotune":         {Plan{Own: 7, Target: 4 * g, Workers: 4}, 7},
		"none without autotune":            {Plan{Target: 4 * g, Workers: 4, Host: 2 * g}, 0},
		"a host that does not tell":        {Plan{Target: 4 * g, Autotune: true, Workers: 2}, 2 * g},
	} {
		if got := c.plan.Limit(); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// A container has what its cgroup lets it have.
func TestHostMemory(t *testing.T) {
	write := func(root string, files map[string]string) {
		for name, text := range files {
			p := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	const meminfo = "MemTotal:       1000 kB\nMemFree:        1 kB\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"host":      {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n"}, 1024000},
		"version 2": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "5000\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, 5000},
		"version 1": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "3:cpu:/x\n4:memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "7000\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 7000},
		"unknown":   {nil, 0},
	} {
		root := t.TempDir()
		write(root, c.files)
		if got := hostMemory(root); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
