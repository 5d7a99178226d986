package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Machine is what a run ran on.
type Machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	Memory   int64  `json:"memory_bytes"`
	Kernel   string `json:"kernel"`
	Upstream string `json:"upstream"` // version of rbd-mirror
	Ours     string `json:"ours"`     // version of this tree
	// Load is the load average of the last minute before the case began.
	Load string `json:"load"`
}

// thisMachine looks around.
func thisMachine(upstream, ours string) Machine {
	m := Machine{Cores: runtime.NumCPU(), Upstream: upstream, Ours: ours}
	m.CPU = value("/proc/cpuinfo", "model name")
	_, _ = fmt.Sscanf(value("/proc/meminfo", "MemTotal"), "%d", &m.Memory)
	m.Memory <<= 10
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(kernel))
	load, _ := os.ReadFile("/proc/loadavg")
	m.Load, _, _ = strings.Cut(string(load), " ")
	return m
}

// value is the first value of a key in a file of lines "key : value".
func value(path, key string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// Record is what a run of one case gave: a file.
type Record struct {
	Case    string    `json:"case"`
	About   string    `json:"about"`
	Scale   Scale     `json:"scale"`
	Began   time.Time `json:"began"`
	Machine Machine   `json:"machine"`
	Samples []Sample  `json:"samples"`
}

// file is where a case's record is in a directory.
func file(dir, name string) string {
	return filepath.Join(dir, strings.ReplaceAll(name, "/", "-")+".json")
}

// Save writes a record, whole or not at all.
func (r Record) Save(dir string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	path := file(dir, r.Case)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Load reads all records of a directory, in the order of the cases.
func Load(dir string, order []string) ([]Record, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var records []Record
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var r Record
		if err := json.Unmarshal(text, &r); err != nil || r.Case == "" {
			return nil, errors.Join(fmt.Errorf("%s is no record of a case", path), err)
		}
		records = append(records, r)
	}
	place := func(r Record) int {
		if at := slices.Index(order, r.Case); at >= 0 {
			return at
		}
		return len(order)
	}
	slices.SortStableFunc(records, func(a, b Record) int { return place(a) - place(b) })
	return records, nil
}

// rows are the rows of records.
func rows(records []Record) []Row {
	var all []Row
	for _, r := range records {
		all = append(all, Rows(r.Samples, []string{r.Case})...)
	}
	return all
}
