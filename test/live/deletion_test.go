//go:build live

package live

import (
	"fmt"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// deletion is an entry of the admin socket's failed_deletes_queue.
type deletion struct {
	ImageID string `json:"image_id"`
	Code    string `json:"error_code"`
	Retries int    `json:"retries"`
	Error   string `json:"error"`
}

// TestFailedDeletionsAreTold lets mirroring delete a copy that somebody has cloned here, and one that is to be kept for a
// while. Both are in the queue that operators' scripts look at, until they are gone.
func TestFailedDeletionsAreTold(t *testing.T) {
	pair := harness.SharedPair(t)
	pool, c := harness.NewPool(t, pair, lab.ImageMode), pair.Secondary
	daemon := harness.StartDaemon(t, c, harness.Ours(t))
	cloned, kept := &harness.Image{Pool: pool, Name: "cloned"}, &harness.Image{Pool: pool, Name: "kept"}
	born(t, cloned)
	born(t, kept, "rbd_mirroring_delete_delay=600")
	cloned.Snapshot(t, "snap")
	cloned.WaitReplayed(t)
	kept.WaitReplayed(t)
	clone := pool.Spec() + "/clone"
	harness.Run(t, c, "rbd", "clone", "--rbd-default-clone-format", "2", cloned.Spec()+"@snap", clone)
	ids := map[string]string{cloned.InfoOn(t, c).ID: "cloned", kept.InfoOn(t, c).ID: "kept"}
	for _, image := range []*harness.Image{cloned, kept} {
		harness.Run(t, pair.Primary, "rbd", "mirror", "image", "disable", image.Spec())
	}

	waitQueue := func(what string, right func(byName map[string]deletion) bool) {
		t.Helper()
		harness.Eventually(t, harness.Patience, func() string {
			var status struct {
				Failed []deletion `json:"failed_deletes_queue"`
			}
			daemon.AdminJSON(t, &status, "rbd mirror deletion status "+pool.Name)
			byName := map[string]deletion{}
			for _, d := range status.Failed {
				byName[ids[d.ImageID]] = d
			}
			if !right(byName) {
				return fmt.Sprintf("%s: %+v", what, byName)
			}
			return ""
		})
	}
	waitQueue("a copy with a clone, and one that is kept", func(q map[string]deletion) bool {
		failed, deferred := q["cloned"], q["kept"]
		return len(q) == 2 && failed.Retries > 0 && failed.Code == "(16) Device or resource busy" &&
			deferred == deletion{ImageID: deferred.ImageID, Code: "(0) Success"}
	})
	harness.Run(t, c, "rbd", "rm", "--no-progress", clone)
	waitQueue("the clone is gone", func(q map[string]deletion) bool { return len(q) == 1 && q["kept"].ImageID != "" })
	waitTrash(t, cloned, 0)
	waitTrash(t, kept, 1)
}
