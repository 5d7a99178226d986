package mem

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Options shape a Store. The zero value is a good cluster.
type Options struct {
	// FSID is the cluster's id; empty: one is made up.
	FSID string
	// Now is the OSDs' clock; nil: time.Now.
	Now func() time.Time
	// Faults judges every operation; nil: nothing goes wrong.
	Faults Faults
	// Observe is told of each operation that was performed, and how it ended, before
	// anything else happens on the store; nil: nobody looks. It must not use the store
	// but through the view.
	Observe func(v View, op Op, err error)
	// Config is what Client.Option answers; others give ENOENT.
	Config map[string]string
	// MonCommand answers Client.MonCommand; nil: EOPNOTSUPP.
	MonCommand func(cmd map[string]any, input []byte) (out []byte, status string, err error)
	// WatchTimeout is how long a silent watcher is kept; 0: 30 seconds.
	WatchTimeout time.Duration
}

// Store is a cluster in memory. It is safe for concurrent use.
type Store struct {
	opt Options

	mu         sync.Mutex
	pools      []rados.Pool
	objects    map[objectKey]*object
	clients    map[uint64]*Client
	nextClient uint64
	nextPool   int64
	nextSnap   map[int64]ceph.SnapID
	blocklist  map[string]time.Time // address to end
	nextNotify uint64
	seq        uint64 // of operations
	services   map[string]Service
}

type objectKey struct {
	pool      int64
	namespace string
	name      string
}

// Service is a registered daemon: see rados.Cluster.RegisterService.
type Service struct {
	Client   uint64
	Metadata map[string]string
	Status   map[string]string
}

// New makes an empty cluster.
func New(opt Options) *Store {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.FSID == "" {
		opt.FSID = "6d656d6f-7279-4000-8000-000000000001"
	}
	if opt.WatchTimeout == 0 {
		opt.WatchTimeout = 30 * time.Second
	}
	return &Store{
		opt:        opt,
		objects:    map[objectKey]*object{},
		clients:    map[uint64]*Client{},
		nextClient: 4100,
		nextSnap:   map[int64]ceph.SnapID{},
		blocklist:  map[string]time.Time{},
		services:   map[string]Service{},
	}
}

// inOrder are all objects, always in the same order: who is woken first must not depend on
// chance. It is called with the lock held.
func (s *Store) inOrder() []*object {
	keys := slices.SortedFunc(maps.Keys(s.objects), func(a, b objectKey) int {
		return cmp.Or(cmp.Compare(a.pool, b.pool), strings.Compare(a.namespace, b.namespace), strings.Compare(a.name, b.name))
	})
	all := make([]*object, len(keys))
	for i, key := range keys {
		all[i] = s.objects[key]
	}
	return all
}

// AddPool makes a pool. It panics if there is one of that name.
func (s *Store) AddPool(name string) rados.Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.pools, func(p rados.Pool) bool { return p.Name == name }) {
		panic(fmt.Sprintf("mem: pool %q exists", name))
	}
	s.nextPool++
	p := rados.Pool{ID: s.nextPool, Name: name}
	s.pools = append(s.pools, p)
	return p
}

// RemovePool deletes a pool with its objects, as "ceph osd pool delete" does: its
// watches end, and every later operation on it gives ENOENT. It panics if there is none
// of that name.
func (s *Store) RemovePool(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.pools, func(p rados.Pool) bool { return p.Name == name })
	if i < 0 {
		panic(fmt.Sprintf("mem: no pool %q", name))
	}
	id := s.pools[i].ID
	s.pools = slices.Delete(slices.Clone(s.pools), i, i+1)
	for key, o := range s.objects {
		if key.pool == id {
			s.dropWatches(o, syscall.ENOENT)
			delete(s.objects, key)
		}
	}
}

// Connect makes a client.
func (s *Store) Connect() *Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextClient++
	c := &Client{store: s, id: s.nextClient, address: clientAddress(s.nextClient), chains: map[chainKey]chan struct{}{}}
	s.clients[c.id] = c
	return c
}

// Blocklisted lists the addresses that are refused now.
func (s *Store) Blocklisted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for a, end := range s.blocklist {
		if end.After(s.opt.Now()) {
			out = append(out, a)
		}
	}
	slices.Sort(out)
	return out
}

// Unblocklist takes an address from the blocklist, as an operator may.
func (s *Store) Unblocklist(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blocklist, address)
}

// Services gives the service map: "service.id" to what was registered.
func (s *Store) Services() map[string]Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]Service, len(s.services))
	for k, v := range s.services {
		out[k] = v
	}
	return out
}

// isBlocklisted is called with the lock held.
func (s *Store) isBlocklisted(c *Client) bool {
	return s.blocklist[c.address.Blocklist()].After(s.opt.Now())
}

func lockless() lock.Object { return lock.Object{} }
