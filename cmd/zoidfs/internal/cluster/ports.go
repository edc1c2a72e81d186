package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
)

// Ports are taken from below the range from which Linux gives ports to
// outgoing connections (32768 and up by default), so that nobody's connection
// sits on a port of a system that is down.
const (
	minPort = 18000
	maxPort = 32000
)

// portTries bounds the search for one free port.
const portTries = 200

// FreeAddrs returns n different addresses on the loopback interface on which
// nobody listens now, none of them in taken.
func FreeAddrs(n int, taken []string) ([]string, error) {
	seen := map[string]bool{}
	for _, a := range taken {
		seen[a] = true
	}
	var out []string
	for range n * portTries {
		if len(out) == n {
			return out, nil
		}
		addr := fmt.Sprintf("127.0.0.1:%d", minPort+rand.IntN(maxPort-minPort))
		if seen[addr] || InUse(addr) {
			continue
		}
		seen[addr] = true
		out = append(out, addr)
	}
	if len(out) == n {
		return out, nil
	}
	return nil, fmt.Errorf("no %d free ports between %d and %d on 127.0.0.1", n, minPort, maxPort)
}

// InUse reports whether somebody listens on addr.
func InUse(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		l.Close()
	}
	return errors.Is(err, syscall.EADDRINUSE)
}
