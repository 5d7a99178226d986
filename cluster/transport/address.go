package transport

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// Bind is where a member listens.
type Bind struct {
	// Configured is HOST, HOST:PORT, or "" for the address of Local. A HOST that stands for
	// all addresses listens on all, and has others use that of Local.
	Configured string
	// Local is this host's address towards the local cluster; invalid if it is not known.
	Local netip.Addr
	// Index is added to a PORT that is not 0, for a daemon has several workers.
	Index int
}

// Check tells whether a configured address can be one.
func Check(configured string) error {
	_, _, err := split(configured)
	return err
}

// split takes a configured address apart.
func split(configured string) (host string, port int, err error) {
	if configured == "" {
		return "", 0, nil
	}
	if _, err := netip.ParseAddr(configured); err == nil { // also an IPv6 address without a port
		return configured, 0, nil
	}
	host, text, err := net.SplitHostPort(configured)
	if err != nil {
		if host, text, err = net.SplitHostPort(configured + ":0"); err != nil {
			return "", 0, fmt.Errorf("%q is no HOST or HOST:PORT", configured)
		}
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q has no port between 0 and 65535", configured)
	}
	return host, port, nil
}

// resolve gives what to listen on, and the host that others are told.
func (b Bind) resolve() (listen, advertise string, err error) {
	host, port, err := split(b.Configured)
	if err != nil {
		return "", "", err
	}
	if port != 0 {
		port += b.Index
	}
	ip, ipErr := netip.ParseAddr(host)
	advertise = host
	if host == "" || ipErr == nil && ip.IsUnspecified() {
		if !b.Local.IsValid() || b.Local.IsUnspecified() {
			return "", "", fmt.Errorf("it cannot be told which address of this host reaches the cluster: set rbd_warden_bind_addr")
		}
		advertise = b.Local.String()
	}
	if b.Configured == "" {
		host = advertise
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), advertise, nil
}
