package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
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

// StartPair starts two clusters as StartSites does. The daemon's user exists on both when it answers.
func StartPair(ctx context.Context, o Options) (*Pair, error) {
	clusters, err := StartSites(ctx, 2, o)
	if err != nil {
		return nil, err
	}
	pair, err := PairOf(ctx, clusters[0], clusters[1])
	if err != nil {
		return nil, errors.Join(err, pair.Stop())
	}
	return pair, nil
}

// PairOf makes a pair of two running clusters and creates the daemon's user on both.
func PairOf(ctx context.Context, primary, secondary *Cluster) (*Pair, error) {
	pair := &Pair{Primary: primary, Secondary: secondary}
	return pair, pair.both(func(c *Cluster) error { return c.AddDaemonUser(ctx) })
}

// both does something on the two clusters at once.
func (p *Pair) both(do func(*Cluster) error) error {
	var (
		wait   sync.WaitGroup
		failed [2]error
	)
	for i, c := range []*Cluster{p.Primary, p.Secondary} {
		wait.Go(func() { failed[i] = do(c) })
	}
	wait.Wait()
	return errors.Join(failed[:]...)
}

// Stop stops both clusters.
func (p *Pair) Stop() error { return p.both((*Cluster).Stop) }

// mirrorTimeout bounds MirrorPool: rbd waits for ever on a cluster that takes no writes.
const mirrorTimeout = 2 * time.Minute

// MirrorPool creates a pool on both clusters, enables mirroring and makes each the other's peer, as an operator does:
// a bootstrap token created on the primary and imported on the secondary.
func (p *Pair) MirrorPool(ctx context.Context, pool string, mode MirrorMode) error {
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	err := p.both(func(c *Cluster) error {
		if err := c.CreatePool(ctx, pool); err != nil {
			return err
		}
		_, err := c.CLI(ctx, "rbd", "mirror", "pool", "enable", "--site-name", c.Name(), pool, string(mode))
		return err
	})
	if err != nil {
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
