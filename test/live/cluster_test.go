//go:build live

package live

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// psCluster is what "rbd-warden ps --cluster --json" says when a daemon is asked.
func psCluster(t *testing.T, c *lab.Cluster, d *harness.Daemon) report.Cluster {
	t.Helper()
	out, complaints, code := harness.Warden(t, c, "ps", "--cluster", "--json", "--socket", d.ControlSocket(c))
	var all []report.Cluster
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 || len(all) != 1 {
		t.Fatalf("ps --cluster: %v, exit code %d in %q, %q", err, code, out, complaints)
	}
	return all[0]
}

// owners are the pids of the daemons that run each image, by its name, as one daemon tells of all.
func owners(c report.Cluster) map[string][]int {
	runs := map[string][]int{}
	for _, d := range c.Daemons {
		if d.Report == nil {
			continue
		}
		for _, w := range d.Report.Workers {
			for _, p := range w.Pools {
				for _, i := range p.Images {
					if i.State == "replaying" {
						runs[i.Name] = append(runs[i.Name], d.PID)
					}
				}
			}
		}
	}
	return runs
}

// disagree compares what all daemons say of the site with what each says of itself, on its admin socket too, and with
// what "rbd mirror pool status" says; "" if it is all the same.
func disagree(t *testing.T, pool *harness.Pool, images []*harness.Image, daemons ...*harness.Daemon) string {
	t.Helper()
	c := pool.Pair.Secondary
	status := pool.PoolStatusOn(t, c)
	admin := map[int]map[string]bool{} // by pid, the images that the admin socket tells of
	leads := map[int]bool{}
	for _, d := range daemons {
		var said struct {
			Pools []struct {
				Leader bool `json:"leader"`
				Images []struct {
					Name string `json:"name"`
				} `json:"image_replayers"`
			} `json:"pool_replayers"`
		}
		d.AdminJSON(t, &said, "rbd mirror status")
		admin[d.PID()] = map[string]bool{}
		for _, p := range said.Pools {
			leads[d.PID()] = leads[d.PID()] || p.Leader
			for _, i := range p.Images {
				admin[d.PID()][i.Name[strings.LastIndexByte(i.Name, '/')+1:]] = true
			}
		}
	}
	for _, asked := range daemons {
		said := psCluster(t, c, asked)
		said.Daemons = slices.DeleteFunc(said.Daemons, func(d report.ClusterDaemon) bool {
			return d.State == report.DaemonDead && admin[d.PID] == nil // shown for a while
		})
		if len(said.Daemons) != len(daemons) || said.Frozen || len(said.Notes) > 0 {
			return fmt.Sprintf("%d daemons: %+v", len(said.Daemons), said)
		}
		for _, d := range said.Daemons {
			if d.State != report.DaemonAnswers || d.Report == nil || admin[d.PID] == nil {
				return fmt.Sprintf("daemon %d: %+v", d.PID, d)
			}
		}
		leader := ""
		for _, d := range status.Daemons { // the dead are among them, as they were, until the mgr forgets them (mgr_service_beacon_grace)
			lives := slices.ContainsFunc(said.Daemons, func(e report.ClusterDaemon) bool { return slices.Contains(e.Members, d.InstanceID) })
			if d.Leader && lives {
				leader += d.InstanceID
			}
		}
		if len(said.Pools) != 1 || said.Pools[0].Member != leader || !leads[said.Pools[0].PID] || said.Pools[0].Images != len(images) {
			return fmt.Sprintf("leader %+v; the pool's status says %q, admin sockets say %v", said.Pools, leader, leads)
		}
		runs := owners(said)
		for _, i := range images {
			who := runs[i.Name]
			if len(who) != 1 || !admin[who[0]][i.Name] {
				return fmt.Sprintf("image %s is run by %v; admin sockets say %v", i.Name, who, admin)
			}
		}
	}
	if len(status.Images) != len(images) || slices.ContainsFunc(status.Images, func(i struct {
		Name string `json:"name"`
		harness.Status
	},
	) bool {
		return i.State != "up+replaying"
	}) {
		return fmt.Sprintf("pool status: %+v", status.Images)
	}
	return ""
}

// TestASiteOfThreeDaemons: each daemon tells of all three, in agreement with every other view; strangers at a member's
// port are refused and disturb nobody; a command for another daemon's image has its effect, and holds when the image
// moves; one that is killed, or stopped, is shown as such within seconds.
func TestASiteOfThreeDaemons(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	var images []*harness.Image
	for n := range 6 {
		images = append(images, pool.Create(t, fmt.Sprint("image", n), harness.ImageOptions{SizeMiB: 8}))
	}
	c := pair.Secondary
	start := func(name, workers string) *harness.Daemon {
		return harness.StartDaemon(t, c, harness.Ours(t), "--rbd-warden-workers", workers, "--pid-file", filepath.Join(c.RunDir(), name+".pid"))
	}
	a, b, d := start("a", "2"), start("b", "1"), start("d", "1")
	for _, i := range images {
		i.WaitReplayed(t)
	}
	harness.Eventually(t, harness.Patience, func() string { return disagree(t, pool, images, a, b, d) })

	strangers(t, pair, a)
	for _, i := range images {
		i.Bench(t, "rand", "4K", "64K")
	}
	for _, i := range images {
		i.WaitReplayed(t)
	}
	harness.Eventually(t, harness.Patience, func() string { return disagree(t, pool, images, a, b, d) })

	// A command to whoever does not run the image.
	elsewhere := func(image *harness.Image, not ...*harness.Daemon) (owner *harness.Daemon) {
		t.Helper()
		harness.Eventually(t, harness.Patience, func() string {
			who := owners(psCluster(t, c, a))[image.Name]
			for _, o := range []*harness.Daemon{a, b, d} {
				if len(who) == 1 && who[0] == o.PID() && !slices.Contains(not, o) {
					owner = o
				}
			}
			if owner == nil {
				return fmt.Sprintf("image %s is run by %v", image.Name, who)
			}
			return ""
		})
		return owner
	}
	var image *harness.Image
	for _, i := range images {
		if owners(psCluster(t, c, a))[i.Name][0] == d.PID() {
			image = i
		}
	}
	if image == nil {
		t.Fatal("one of three daemons runs nothing")
	}
	warden := func(at *harness.Daemon, code int, want string, args ...string) {
		t.Helper()
		out, complaints, got := harness.Warden(t, c, append(args, "--socket", at.ControlSocket(c))...)
		if got != code || !strings.Contains(out+complaints, want) {
			t.Errorf("%v: exit code %d, %q, %q; want %d, %q", args, got, out, complaints, code, want)
		}
	}
	spec := image.Spec()
	by := fmt.Sprintf("image %s (daemon %s): ", spec, report.DaemonName(hostname(t), d.PID()))
	warden(a, 0, by+"was replaying, replaying", "image", "restart", spec)
	warden(b, 0, by+"was replaying, paused", "image", "pause", spec)
	image.WaitState(t, "up+stopped", "paused by ")
	warden(a, 0, by+"was paused, replaying", "image", "resume", spec)
	warden(b, 0, ", flushed", "image", "flush", spec)
	warden(a, 0, by+"was replaying, stopped", "image", "stop", spec)
	if locked(t, image) {
		t.Error("a stop was acknowledged before the lock was free")
	}
	warden(a, 1, "which runs it, refuses: image", "image", "pause", spec)
	warden(a, 1, "no image "+pool.Name+"/absent is mirrored by this daemon", "image", "stop", pool.Name+"/absent")

	// The owner dies: seen within seconds, its images go elsewhere, and the stop goes with them.
	d.Kill()
	began := time.Now()
	harness.Eventually(t, harness.Patience, func() string {
		for _, at := range []*harness.Daemon{a, b} {
			for _, e := range psCluster(t, c, at).Daemons {
				if e.PID == d.PID() && e.State != report.DaemonDead {
					return fmt.Sprintf("the dead daemon is %+v", e)
				}
			}
		}
		return ""
	})
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the death was shown after %v", took)
	}
	t.Logf("a killed daemon is shown as dead after %v", time.Since(began))
	out, _, _ := harness.Warden(t, c, "ps", "--cluster", "--socket", b.ControlSocket(c))
	if want := fmt.Sprintf("daemon %d on %s: DEAD for ", d.PID(), hostname(t)); !strings.Contains(out, want) || !strings.Contains(out, "3 daemons, 2 answer") {
		t.Errorf("ps --cluster lacks %q:\n%s", want, out)
	}
	image.WaitState(t, "up+stopped", "stopped by ")
	harness.Eventually(t, harness.Patience, func() string {
		runs := owners(psCluster(t, c, a))
		if len(runs) != len(images)-1 || len(runs[image.Name]) > 0 {
			return fmt.Sprintf("replaying: %v; all but %s are to", runs, image.Name)
		}
		return ""
	})
	warden(a, 0, "was stopped, replaying", "image", "start", spec)
	warden(b, 0, "replaying", "image", "start", spec)
	elsewhere(image, d)

	// One that says nothing keeps nobody waiting.
	b.Signal(syscall.SIGSTOP, true)
	began = time.Now()
	said := psCluster(t, c, a)
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("said after %v that a daemon does not answer", took)
	}
	for _, e := range said.Daemons {
		if e.PID == b.PID() && (e.State == report.DaemonAnswers || e.Text == "") {
			t.Errorf("a daemon whose workers are stopped: %+v", e)
		}
	}
	b.Kill()
	for _, i := range images {
		i.WaitReplayed(t)
		i.AssertEqual(t)
	}
	took := a.Stop(t, stopTime)
	t.Logf("the last daemon stopped in %v", took)
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// strangers knock at a member's port in every way that is not allowed; each is refused, and logged.
func strangers(t *testing.T, pair *lab.Pair, d *harness.Daemon) {
	t.Helper()
	address, fsid := listens(t, d), fsidOf(t, pair.Secondary)
	knock := func(what string, talk func(net.Conn) error, logged string) {
		t.Helper()
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if err := talk(conn); err == nil {
			t.Errorf("%s is let in", what)
		}
		harness.Eventually(t, 10*time.Second, func() string {
			text, err := os.ReadFile(d.Log())
			if err != nil || !strings.Contains(string(text), logged) {
				return fmt.Sprintf("the log does not say of %s: %s (%v)", what, logged, err)
			}
			return ""
		})
	}
	secure := func(certs ...tls.Certificate) func(net.Conn) error {
		return func(conn net.Conn) error {
			c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: certs})
			if err := c.Handshake(); err != nil {
				return err
			}
			_, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
			if err == nil {
				_, err = c.Read(make([]byte, 1)) // the settings of HTTP/2, for who is let in
			}
			return err
		}
	}
	hour := time.Hour
	knock("a member of another cluster", secure(forged(t, fsidOf(t, pair.Primary), -hour, hour)), "its certificate is of cluster")
	knock("an expired certificate", secure(forged(t, fsid, -2*hour, -hour)), "its certificate expired at")
	knock("an unpinned certificate", secure(forged(t, fsid, -hour, hour)), "is not that of a living member")
	knock("a call without a certificate", secure(), "didn't provide a certificate")
	knock("plain text", func(conn net.Conn) error {
		_, _ = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		if len(answer) > 7 { // more than an alert of TLS
			return nil
		}
		return io.EOF
	}, "first record does not look like a TLS handshake")
	for range 200 { // the log tells of a few
		if conn, err := net.Dial("tcp", address); err == nil {
			_, _ = io.WriteString(conn, strings.Repeat("\xff", 5000))
			conn.Close()
		}
	}
	text, err := os.ReadFile(d.Log())
	if n := strings.Count(string(text), "refused a connection"); err != nil || n > 20 {
		t.Errorf("200 strangers made %d lines in the log, %v", n, err)
	}
}

// listens is where the first of a daemon's workers listens, by the log.
func listens(t *testing.T, d *harness.Daemon) (address string) {
	t.Helper()
	harness.Eventually(t, harness.Patience, func() string {
		text, err := os.ReadFile(d.Log())
		if err != nil {
			return err.Error()
		}
		for line := range strings.Lines(string(text)) {
			var l struct{ Message, Address string }
			if json.Unmarshal([]byte(line), &l) == nil && l.Message == "listens to other members" {
				address = l.Address
				return ""
			}
		}
		return "it listens nowhere"
	})
	return address
}

func fsidOf(t *testing.T, c *lab.Cluster) string {
	t.Helper()
	return strings.TrimSpace(harness.Run(t, c, "ceph", "fsid"))
}

// forged is a certificate that is in nobody's record.
func forged(t *testing.T, fsid string, from, to time.Duration) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		Subject: pkix.Name{Organization: []string{fsid}, CommonName: "4123"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
