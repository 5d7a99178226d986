package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// Times of certificates.
const (
	// lifetime is how long a certificate is valid; one of that half's age is replaced.
	lifetime = 7 * 24 * time.Hour
	// skew is by how much the clocks of two hosts may differ.
	skew = 24 * time.Hour
	// settle is how long the next certificate's fingerprint is published before it is used.
	settle = time.Minute
)

// certificate makes a certificate and its key for a member of a cluster. The key never
// leaves the process.
func certificate(fsid, member string, notBefore, notAfter time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: notBefore, NotAfter: notAfter,
		Subject:  pkix.Name{Organization: []string{fsid}, CommonName: member},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// Fingerprint is by what a certificate is known: the SHA-256 of its DER form, in hexadecimal.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// chain is the certificate in use, and while it is being replaced the next one.
type chain struct {
	fsid, member string

	mu            sync.Mutex
	current, next *tls.Certificate
	since         time.Time // of next: when its fingerprint was published
}

func newChain(fsid, member string, now time.Time) (*chain, error) {
	c := &chain{fsid: fsid, member: member}
	var err error
	c.current, err = c.make(now)
	return c, err
}

func (c *chain) make(now time.Time) (*tls.Certificate, error) {
	cert, err := certificate(c.fsid, c.member, now.Add(-skew), now.Add(lifetime))
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return cert, nil
}

// use is the certificate to show.
func (c *chain) use() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// fingerprints are those to publish, the one in use first.
func (c *chain) fingerprints() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := []string{Fingerprint(c.current.Certificate[0])}
	if c.next != nil {
		all = append(all, Fingerprint(c.next.Certificate[0]))
	}
	return all
}

// due tells whether a certificate is to be replaced: half of its time is over, or the clock was set back, and by the clocks of
// others it may not be valid for long yet.
func due(cert *tls.Certificate, now time.Time) bool {
	return now.After(cert.Leaf.NotAfter.Add(-lifetime/2)) || now.Before(cert.Leaf.NotBefore.Add(skew/2))
}

// renew replaces the certificate in good time, in two steps: the next one's fingerprint is
// published first, and it is used when everybody knows it. It tells whether there is
// something new to publish.
func (c *chain) renew(now time.Time) (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil && due(c.next, now) {
		c.next = nil // the clock was set since it was made
		changed = true
	}
	switch {
	case c.next != nil && now.Sub(c.since) >= settle:
		c.current, c.next = c.next, nil
		return true, nil
	case c.next == nil && due(c.current, now):
		if c.next, err = c.make(now); err != nil {
			return changed, err
		}
		c.since = now
		return true, nil
	}
	return changed, nil
}
