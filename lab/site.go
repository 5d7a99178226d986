package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// StartSites starts n clusters side by side, in the subdirectories site-a, site-b and so on of o.Dir (or of a new
// temporary directory). Upon an error none is left.
func StartSites(ctx context.Context, n int, o Options) ([]*Cluster, error) {
	if n < 1 || n > 26 {
		return nil, fmt.Errorf("lab: %d clusters; want 1 to 26", n)
	}
	dir, err := makeDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	var wait sync.WaitGroup
	clusters, failed := make([]*Cluster, n), make([]error, n)
	for i := range n {
		own := o
		own.parent = dir
		own.Name = fmt.Sprintf("site-%c", 'a'+i)
		own.Dir = filepath.Join(dir, own.Name)
		wait.Go(func() { clusters[i], failed[i] = Start(ctx, own) })
	}
	wait.Wait()
	if err := errors.Join(failed...); err != nil {
		for _, c := range clusters {
			if c != nil {
				err = errors.Join(err, c.Stop())
			}
		}
		os.Remove(dir) // none of them started, perhaps
		return nil, err
	}
	return clusters, nil
}

// OpenSites answers the clusters in a directory: the one that it holds itself, or those in its subdirectories.
func OpenSites(dir string) ([]*Cluster, error) {
	one, err := Open(dir)
	if err == nil {
		return []*Cluster{one}, nil
	}
	if !errors.Is(err, ErrNotLab) {
		return nil, err
	}
	files, globErr := filepath.Glob(filepath.Join(dir, "*", stateName))
	if globErr != nil || len(files) == 0 {
		return nil, err
	}
	var clusters []*Cluster
	for _, file := range files {
		c, err := Open(filepath.Dir(file))
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, c)
	}
	return clusters, nil
}

// StopSites stops the clusters that OpenSites finds. Their common directory goes with the last.
func StopSites(dir string) error {
	clusters, err := OpenSites(dir)
	if err != nil && !errors.Is(err, ErrNotLab) {
		return err
	}
	var failed []error
	for _, c := range clusters {
		failed = append(failed, c.Stop())
	}
	return errors.Join(append(failed, err)...)
}
