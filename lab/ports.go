package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// A cluster's monitor needs two ports, side by side. They come from below the kernel's range for outgoing connections
// (32768 on), so that no client's connection takes one between our look and the monitor's bind.
const (
	portLow  = 20000
	portHigh = 32000
	portPair = 2
)

// portClaim is a pair of ports that this process holds against other labs on the host until release. It holds them by
// an abstract Unix socket: the kernel drops it with the process, and no lock file stays behind.
type portClaim struct {
	first int
	lock  net.Listener
}

// claimPorts finds two neighbouring loopback ports that nobody listens on and no other lab has claimed.
func claimPorts() (*portClaim, error) {
	for range 200 {
		first := portLow + portPair*rand.IntN((portHigh-portLow)/portPair)
		claim, err := claimPortsAt(first)
		if err == nil {
			return claim, nil
		}
	}
	return nil, errors.New("lab: found no free pair of loopback ports")
}

// claimPortsAt claims the pair that begins at first, which is even.
func claimPortsAt(first int) (*portClaim, error) {
	lock, err := net.Listen("unix", fmt.Sprintf("@rbd-warden-lab-port-%d", first))
	if err != nil {
		return nil, err
	}
	for port := first; port < first+portPair; port++ {
		probe, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			lock.Close()
			return nil, err
		}
		probe.Close()
	}
	return &portClaim{first: first, lock: lock}, nil
}

// release gives the claim up; by then the monitor listens on the ports itself.
func (c *portClaim) release() { c.lock.Close() }
