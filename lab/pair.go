package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Site names of a pair.
const (
	PrimarySite   = "site-a"
	SecondarySite = "site-b"
)

// Pair is two clusters whose pools mirror each other. Images are born on Primary; the daemon runs beside Secondary.
type Pair struct {
	Primary, Secondary *Cluster
}

// MirrorMode is what of a pool is mirrored.
type MirrorMode string

const (
	// PoolMode mirrors every image of the pool that has the journaling feature.
	PoolMode MirrorMode = "pool"
	// ImageMode mirrors the images that are enabled one by one.
	ImageMode MirrorMode = "image"
)

// StartPair starts two clusters, both with the options given except that each gets a directory of its own
// (below o.Dir, where that is set) and its site's name. The daemon's user exists on both when it answers.
func StartPair(ctx context.Context, o Options) (*Pair, error) {
	var (
		wait     sync.WaitGroup
		clusters [2]*Cluster
		failed   [2]error
	)
	for i, site := range []string{PrimarySite, SecondarySite} {
		own := o
		own.Name = site
		if o.Dir != "" {
			own.Dir = filepath.Join(o.Dir, site)
		}
		wait.Go(func() {
			if clusters[i], failed[i] = Start(ctx, own); failed[i] == nil {
				failed[i] = clusters[i].AddDaemonUser(ctx)
			}
		})
	}
	wait.Wait()
	pair := &Pair{Primary: clusters[0], Secondary: clusters[1]}
	if err := errors.Join(failed[:]...); err != nil {
		return nil, errors.Join(err, pair.Stop())
	}
	return pair, nil
}

// Stop stops both clusters.
func (p *Pair) Stop() error {
	var failed []error
	for _, c := range []*Cluster{p.Primary, p.Secondary} {
		if c != nil {
			failed = append(failed, c.Stop())
		}
	}
	return errors.Join(failed...)
}

// MirrorPool creates a pool on both clusters, enables mirroring and makes each the other's peer, as an operator does:
// a bootstrap token created on the primary and imported on the secondary.
func (p *Pair) MirrorPool(ctx context.Context, pool string, mode MirrorMode) error {
	var (
		wait   sync.WaitGroup
		failed [2]error
	)
	for i, c := range []*Cluster{p.Primary, p.Secondary} {
		wait.Go(func() {
			if failed[i] = c.CreatePool(ctx, pool); failed[i] == nil {
				_, failed[i] = c.CLI(ctx, "rbd", "mirror", "pool", "enable", "--site-name", c.Name(), pool, string(mode))
			}
		})
	}
	wait.Wait()
	if err := errors.Join(failed[:]...); err != nil {
		return err
	}
	return p.Introduce(ctx, pool)
}

// Introduce makes the clusters each other's peers for a pool where mirroring is enabled on both.
func (p *Pair) Introduce(ctx context.Context, pool string) error {
	token, err := p.Primary.CLI(ctx, "rbd", "mirror", "pool", "peer", "bootstrap", "create",
		"--site-name", p.Primary.Name(), pool)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(p.Secondary.Dir(), "token-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err := file.WriteString(token); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if _, err := p.Secondary.CLI(ctx, "rbd", "mirror", "pool", "peer", "bootstrap", "import",
		"--site-name", p.Secondary.Name(), "--direction", "rx-tx", pool, file.Name()); err != nil {
		return fmt.Errorf("import of the peer's token: %w", err)
	}
	return nil
}
