package mem

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Client is a connection to a Store. It implements rados.Cluster.
type Client struct {
	store   *Store
	id      uint64
	address lock.EntityAddr

	mu      sync.Mutex
	crashed bool
	closed  bool
	service string
	chains  map[chainKey]chan struct{} // the last operation on each object
}

var _ rados.Cluster = (*Client)(nil)

func clientAddress(id uint64) lock.EntityAddr {
	return lock.EntityAddr{
		Type:  lock.AddrAny,
		Nonce: uint32(id),
		Addr:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0),
	}
}

// FSID implements rados.Cluster.
func (c *Client) FSID() string { return c.store.opt.FSID }

// InstanceID implements rados.Cluster.
func (c *Client) InstanceID() uint64 { return c.id }

// Addresses implements rados.Cluster.
func (c *Client) Addresses() string { return c.address.Blocklist() }

// ErrCrashed is what every call of a crashed client gives, at once: whoever still
// runs in its name can do no more harm, and a test can end it.
var ErrCrashed = fmt.Errorf("client has crashed: %w", syscall.ENOTCONN)

// Crash ends the client as kill -9 does: what it has under way may or may not take
// effect, nothing more does, and its watches stay until they time out.
func (c *Client) Crash() {
	c.mu.Lock()
	c.crashed = true
	c.mu.Unlock()
	c.store.silence(c)
}

// Crashed says whether the client has crashed, by Crash or by a fault.
func (c *Client) Crashed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crashed
}

// Pools implements rados.Cluster.
func (c *Client) Pools(ctx context.Context) ([]rados.Pool, error) {
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	return slices.Clone(c.store.pools), nil
}

// Open implements rados.Cluster.
func (c *Client) Open(ctx context.Context, pool, namespace string) (rados.IOContext, error) {
	return c.open(ctx, pool, namespace, func(p rados.Pool) bool { return p.Name == pool })
}

// OpenID implements rados.Cluster.
func (c *Client) OpenID(ctx context.Context, pool int64, namespace string) (rados.IOContext, error) {
	return c.open(ctx, "", namespace, func(p rados.Pool) bool { return p.ID == pool })
}

func (c *Client) open(ctx context.Context, name, namespace string, is func(rados.Pool) bool) (rados.IOContext, error) {
	pools, err := c.Pools(ctx)
	if err == nil {
		i := slices.IndexFunc(pools, is)
		if i >= 0 {
			return &ioContext{client: c, pool: pools[i], namespace: namespace}, nil
		}
		err = syscall.ENOENT
	}
	return nil, &rados.Error{Op: "open pool", Pool: name, Namespace: namespace, Err: err}
}

// MonCommand implements rados.Cluster with Options.MonCommand.
func (c *Client) MonCommand(ctx context.Context, cmd map[string]any, input []byte) ([]byte, string, error) {
	if err := c.usable(ctx); err != nil {
		return nil, "", err
	}
	if c.store.opt.MonCommand == nil {
		return nil, "", &rados.Error{Op: "mon command", Err: syscall.EOPNOTSUPP}
	}
	return c.store.opt.MonCommand(cmd, input)
}

// Option implements rados.Cluster with Options.Config.
func (c *Client) Option(name string) (string, error) {
	if v, ok := c.store.opt.Config[name]; ok {
		return v, nil
	}
	return "", &rados.Error{Op: "option " + name, Err: syscall.ENOENT}
}

// Blocklist implements rados.Cluster. A client that is blocklisted loses its watches
// at once.
func (c *Client) Blocklist(ctx context.Context, address string, expire time.Duration) error {
	if err := c.usable(ctx); err != nil {
		return err
	}
	addrs, err := lock.ParseEntityAddrs(address)
	if err != nil || len(addrs) == 0 {
		return &rados.Error{Op: "blocklist " + address, Err: syscall.EINVAL}
	}
	if expire <= 0 {
		expire = time.Hour
	}
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range addrs {
		s.blocklist[a.Blocklist()] = s.opt.Now().Add(expire)
	}
	for _, o := range s.inOrder() {
		for _, w := range slices.Clone(o.watches) {
			if s.isBlocklisted(w.client) {
				s.dropWatch(o, w, rados.Blocklisted)
			}
		}
	}
	return nil
}

// WaitForLatestMap implements rados.Cluster.
func (c *Client) WaitForLatestMap(ctx context.Context) error { return c.usable(ctx) }

// RegisterService implements rados.Cluster.
func (c *Client) RegisterService(ctx context.Context, service, id string, metadata map[string]string) error {
	if err := c.usable(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.service != "" {
		return &rados.Error{Op: "register service", Err: syscall.EEXIST}
	}
	c.service = service + "." + id
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.store.services[c.service] = Service{Client: c.id, Metadata: maps.Clone(metadata)}
	return nil
}

// UpdateService implements rados.Cluster.
func (c *Client) UpdateService(ctx context.Context, status map[string]string) error {
	if err := c.usable(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	s, ok := c.store.services[c.service]
	if !ok {
		return &rados.Error{Op: "update service", Err: syscall.EEXIST}
	}
	s.Status = maps.Clone(status)
	c.store.services[c.service] = s
	return nil
}

// Close implements rados.Cluster. Its watches end at once.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	service := c.service
	c.mu.Unlock()
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.services, service)
	for _, o := range s.inOrder() {
		for _, w := range slices.Clone(o.watches) {
			if w.client == c {
				s.dropWatch(o, w, syscall.ENOTCONN)
			}
		}
	}
}

// usable says why the client cannot do anything.
func (c *Client) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	crashed, closed := c.crashed, c.closed
	c.mu.Unlock()
	switch {
	case crashed:
		return ErrCrashed
	case closed:
		return syscall.ESHUTDOWN
	}
	return nil
}
