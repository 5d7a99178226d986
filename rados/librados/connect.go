package librados

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"syscall"
	"time"

	goceph "github.com/ceph/go-ceph/rados"

	"github.com/rbdwarden/rbdwarden/rados"
)

// Config says which cluster to connect to and as whom.
type Config struct {
	// Cluster is the cluster's name, which finds its configuration file; "" is "ceph".
	Cluster string
	// ConfFile is the configuration file. "" searches as every Ceph client does:
	// $CEPH_CONF, /etc/ceph/<cluster>.conf, ~/.ceph/<cluster>.conf, ./<cluster>.conf.
	ConfFile string
	// ClientName is the cephx name: "client.admin", or "admin" for short. "" is
	// client.admin.
	ClientName string

	// MonHost and Key reach a mirror peer whose configuration file this host may
	// not have: if MonHost is set, a missing file is no error.
	MonHost string
	Key     string
	// Peer leaves $CEPH_ARGS aside, which speaks of the local cluster.
	Peer bool

	// Overrides are options that win over all else.
	Overrides map[string]string
	Timeouts  Timeouts

	// MaxUnderway bounds the object operations that the connection has under way;
	// later ones wait for their turn. 0 is 1024.
	MaxUnderway int
}

// Timeouts bound what the cluster may keep us waiting for. A zero value takes the
// option from the configuration, or 30 s if that is unset: nothing waits for ever.
type Timeouts struct {
	Mount time.Duration // client_mount_timeout: connecting
	Mon   time.Duration // rados_mon_op_timeout: monitor commands, snapshot ids
	OSD   time.Duration // rados_osd_op_timeout: object operations
}

const defaultTimeout = 30 * time.Second

// quiet are options for a library inside a daemon: the process has one admin
// socket and one log, and they are not librados'. The throttles of the Objecter
// block the calling thread; our own bound (MaxUnderway) does not, so they are off.
var quiet = map[string]string{
	"admin_socket":               "",
	"log_file":                   "",
	"log_to_file":                "false",
	"log_to_stderr":              "false",
	"err_to_stderr":              "false",
	"pid_file":                   "",
	"objecter_inflight_ops":      "0",
	"objecter_inflight_op_bytes": "0",
}

// tick is how often librados looks after its operations and pings its watches, where nobody has set that
// (objecter_tick_interval). Ceph's default of 5 s is for clients with one image. With three watches an image, pings
// are nearly all that a site at rest asks of its OSDs; an OSD drops a watch after 30 s without one.
const (
	tickOption             = "objecter_tick_interval"
	tickDefault, tickValue = 5, "10"
)

// setTick makes librados tick as often as we want it to, unless the cluster's operator wants something else.
func setTick(conn *goceph.Conn) error {
	value, err := conn.GetConfigOption(tickOption)
	if err != nil {
		return err
	}
	if now, err := strconv.ParseFloat(value, 64); err != nil || now != tickDefault {
		return err
	}
	return conn.SetConfigOption(tickOption, tickValue)
}

// ConnectError says that a connection could not be made, and what the operator
// may look at. It never contains a key.
type ConnectError struct {
	Cluster string
	Client  string
	Step    string // what was done
	Hint    string // "" if there is none
	Err     error  // wraps a syscall.Errno or a context's error
}

func (e *ConnectError) Error() string {
	s := fmt.Sprintf("connect to cluster %s as %s: %s: %v", e.Cluster, e.Client, e.Step, e.Err)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *ConnectError) Unwrap() error { return e.Err }

// Connect connects to a cluster. It returns when ctx ends; what librados still has
// under way then is cleaned up behind it. Errors are *ConnectError: EACCES or EPERM
// for a key that the cluster refuses, ETIMEDOUT for monitors that do not answer,
// ENOENT for a missing configuration file or keyring.
func Connect(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.Cluster == "" {
		cfg.Cluster = "ceph"
	}
	cfg.ClientName = fullName(cfg.ClientName)
	if cfg.MaxUnderway <= 0 {
		cfg.MaxUnderway = 1024
	}
	type answer struct {
		c   *Cluster
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		c, err := connect(cfg)
		ch <- answer{c, err}
	}()
	select {
	case a := <-ch:
		return a.c, a.err
	case <-ctx.Done():
		go func() {
			if a := <-ch; a.c != nil {
				a.c.Close()
			}
		}()
		return nil, &ConnectError{cfg.Cluster, cfg.ClientName, "connecting", "", ctx.Err()}
	}
}

func fullName(name string) string {
	if name == "" {
		return "client.admin"
	}
	for i := range name {
		if name[i] == '.' {
			return name
		}
	}
	return "client." + name
}

func connect(cfg Config) (*Cluster, error) {
	fail := func(step, hint string, err error) error {
		return &ConnectError{cfg.Cluster, cfg.ClientName, step, hint, fromGoCeph(err)}
	}
	conn, err := goceph.NewConnWithClusterAndUser(cfg.Cluster, cfg.ClientName)
	if err != nil {
		return nil, fail("create client", "", err)
	}
	ok := false
	defer func() {
		if !ok {
			shutdown(conn)
		}
	}()
	if step, err := configure(conn, cfg); err != nil {
		return nil, fail(step, confHint(cfg, err), err)
	}
	if err := conn.Connect(); err != nil {
		return nil, fail("open session", connectHint(fromGoCeph(err)), err)
	}
	c := &Cluster{
		conn:     conn,
		name:     cfg.Cluster,
		slots:    make(chan struct{}, cfg.MaxUnderway),
		blocking: make(chan struct{}, blockingCalls),
		closing:  make(chan struct{}),
		drained:  make(chan struct{}),
		ios:      make(map[*ioContext]struct{}),
	}
	if c.fsid, err = conn.GetFSID(); err != nil {
		return nil, fail("read fsid", "", err)
	}
	c.instance = conn.GetInstanceID()
	if c.addresses, err = conn.GetAddrs(); err != nil {
		return nil, fail("read own address", "", err)
	}
	ok = true
	return c, nil
}

func configure(conn *goceph.Conn, cfg Config) (step string, err error) {
	// librados complains on stderr from the first line of the file on.
	if err := setAll(conn, quiet); err != nil {
		return "quiet librados", err
	}
	if cfg.ConfFile != "" {
		step = "read " + cfg.ConfFile
		err = conn.ReadConfigFile(cfg.ConfFile)
	} else {
		step = "read the configuration file"
		err = conn.ReadDefaultConfigFile()
	}
	if err != nil && (cfg.MonHost == "" || !errors.Is(fromGoCeph(err), syscall.ENOENT)) {
		return step, err
	}
	if !cfg.Peer {
		if err := conn.ParseDefaultConfigEnv(); err != nil {
			return "read $CEPH_ARGS", err
		}
	}
	for _, o := range [...]struct{ name, value string }{{"mon_host", cfg.MonHost}, {"key", cfg.Key}} {
		if o.value != "" {
			if err := conn.SetConfigOption(o.name, o.value); err != nil {
				return "set option " + o.name, err
			}
		}
	}
	if err := setTimeouts(conn, cfg.Timeouts); err != nil {
		return "set timeouts", err
	}
	if err := setTick(conn); err != nil {
		return "set option " + tickOption, err
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Overrides)) {
		if err := conn.SetConfigOption(name, cfg.Overrides[name]); err != nil {
			return "set option " + name, err
		}
	}
	return "", nil
}

func setAll(conn *goceph.Conn, options map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if err := conn.SetConfigOption(name, options[name]); err != nil {
			return fmt.Errorf("option %s: %w", name, fromGoCeph(err))
		}
	}
	return nil
}

// setTimeouts bounds what is unbounded: the default of the operation timeouts is 0,
// for ever, and that of client_mount_timeout is 300 s.
func setTimeouts(conn *goceph.Conn, t Timeouts) error {
	for _, o := range [...]struct {
		name  string
		value time.Duration
		unset float64 // seconds
	}{
		{"client_mount_timeout", t.Mount, 300},
		{"rados_mon_op_timeout", t.Mon, 0},
		{"rados_osd_op_timeout", t.OSD, 0},
	} {
		value := o.value
		if value <= 0 {
			s, err := conn.GetConfigOption(o.name)
			if err != nil {
				return fmt.Errorf("option %s: %w", o.name, fromGoCeph(err))
			}
			if have, err := strconv.ParseFloat(s, 64); err == nil && have > 0 && have != o.unset {
				continue
			}
			value = defaultTimeout
		}
		seconds := strconv.FormatInt(int64((value+time.Second-1)/time.Second), 10)
		if err := conn.SetConfigOption(o.name, seconds); err != nil {
			return fmt.Errorf("option %s: %w", o.name, fromGoCeph(err))
		}
	}
	return nil
}

func confHint(cfg Config, err error) string {
	if errors.Is(fromGoCeph(err), syscall.ENOENT) && cfg.ConfFile == "" {
		return "no configuration file for cluster " + cfg.Cluster + ", see CEPH_CONF and /etc/ceph"
	}
	return ""
}

func connectHint(err error) string {
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "the cluster refuses this client's name or key"
	case errors.Is(err, syscall.ETIMEDOUT):
		return "no monitor answered"
	case errors.Is(err, syscall.ENOENT):
		return "no keyring with a key for this client, or no monitor address"
	case errors.Is(err, rados.Blocklisted):
		return "this client's address is blocklisted"
	}
	return ""
}
