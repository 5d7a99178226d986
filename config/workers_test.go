package config

import "testing"

func TestWorkerCount(t *testing.T) {
	for _, c := range []struct{ configured, cores, want int }{
		{0, 1, 1}, {0, 2, 2}, {0, 4, 2}, {0, 6, 3}, {0, 64, 4}, {1, 64, 1}, {9, 1, 9},
	} {
		if got := workerCount(c.configured, c.cores); got != c.want {
			t.Errorf("%d configured, %d cores: %d, want %d", c.configured, c.cores, got, c.want)
		}
	}
}
