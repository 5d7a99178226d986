package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// connect opens the local cluster and loads the options from it. socket is the admin
// socket that the connection gets, "" for none.
func connect(ctx context.Context, cfg config.Config, socket string, log zerolog.Logger) (*librados.Cluster, config.Options, error) {
	own, err := cfg.LoadOwn()
	if err != nil {
		return nil, config.Options{}, err
	}
	overrides := maps.Clone(cfg.Librados())
	if socket != "" {
		overrides["admin_socket"] = socket
	}
	for {
		c, err := librados.Connect(ctx, librados.Config{
			Cluster:    cfg.Cluster,
			ConfFile:   cfg.ConfFile,
			ClientName: cfg.Entity.String(),
			MonHost:    overrides["mon_host"],
			Overrides:  overrides,
			Timeouts: librados.Timeouts{
				Mount: own.Warden.ConnectTimeout, Mon: own.Warden.MonTimeout, OSD: own.Warden.OSDTimeout,
			},
		})
		if name := unknownOption(err); name != "" && overrides[name] != "" {
			// rbd-mirror passes over what it does not know; so must who stands in
			// for it.
			log.Warn().Str("option", name).Msg("this release of Ceph has no such option; it is ignored")
			delete(overrides, name)
			continue
		}
		if err != nil {
			return nil, config.Options{}, err
		}
		options, err := config.Load(cfg.Getter(c.Option))
		if err != nil {
			c.Close()
			return nil, config.Options{}, fmt.Errorf("configuration: %w", err)
		}
		return c, options, nil
	}
}

// unknownOption is the name of the option that librados did not know, if that is what
// an error is about.
func unknownOption(err error) string {
	var failed *librados.ConnectError
	if !errors.As(err, &failed) || !errors.Is(err, syscall.ENOENT) {
		return ""
	}
	name, ok := strings.CutPrefix(failed.Step, "set option ")
	if !ok {
		return ""
	}
	return name
}
