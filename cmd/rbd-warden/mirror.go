package main

import (
	"context"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/config"
)

// mirror is a worker's work, until ctx ends.
func mirror(ctx context.Context, cfg config.Config, log zerolog.Logger, s seams) error {
	c, _, err := connect(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer c.Close()
	log.Info().Str("fsid", c.FSID()).Uint64("client", c.InstanceID()).Msg("connected")
	s.Ready()
	<-ctx.Done()
	return nil
}
