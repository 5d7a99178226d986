package provider

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/cluster"
)

// KindImage is the kind of identities that are images.
const KindImage = "image"

// Image is a mirrored image of the local cluster.
type Image struct {
	PoolID              int64
	Namespace, GlobalID string
}

// Identity is the image's identity in the cluster.
func (i Image) Identity() string {
	return fmt.Sprintf("%d/%s/%s", i.PoolID, i.Namespace, i.GlobalID)
}

// parseImage reads what Identity wrote.
func parseImage(identity string) (i Image, ok bool) {
	parts := strings.Split(identity, "/")
	if len(parts) != 3 || parts[2] == "" {
		return Image{}, false
	}
	id, err := strconv.ParseInt(parts[0], 10, 64)
	return Image{id, parts[1], parts[2]}, err == nil
}

// Lookup finds the actor to talk to about an image: that of the member that the image map
// gives it to. It reads the map each time it is asked, which is when a person asks; what it
// answers may be wrong a moment later, so whoever is asked says whether it is its own. It
// implements cluster.IdentityLookup.
type Lookup struct {
	// Owner reads from the image map who owns an image; "" if nobody does.
	Owner func(ctx context.Context, image Image) (member string, err error)
	// Knows tells whether a member lives.
	Knows func(member string) bool
	// Actor is the name of the actor that each member has for this.
	Actor string
	// Timeout bounds a look.
	Timeout time.Duration
}

// Get implements cluster.IdentityLookup: nil if nobody is known to own the image.
func (l *Lookup) Get(id *cluster.ClusterIdentity) *actor.PID {
	image, ok := parseImage(id.GetIdentity())
	if !ok || id.GetKind() != KindImage {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.Timeout)
	defer cancel()
	owner, err := l.Owner(ctx, image)
	if err != nil || owner == "" || !l.Knows(owner) {
		return nil
	}
	return actor.NewPID(owner, l.Actor)
}

// RemovePid implements cluster.IdentityLookup: nothing is kept.
func (l *Lookup) RemovePid(*cluster.ClusterIdentity, *actor.PID) {}

// Setup implements cluster.IdentityLookup.
func (l *Lookup) Setup(*cluster.Cluster, []string, bool) {}

// Shutdown implements cluster.IdentityLookup.
func (l *Lookup) Shutdown() {}
