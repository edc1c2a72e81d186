package rpc

import (
	"context"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// nearBuffer is how many bytes a Unix socket holds for a peer that is not
// reading just now, if the kernel lets us: with its default of 208 KiB sender
// and receiver wait for each other four times in 1 MiB.
const nearBuffer = 4 << 20

// nearAddr names the Unix socket of whoever listens at a TCP address. It is an
// abstract one: it belongs to the network namespace, as the address does, and
// goes with its listener.
func nearAddr(tcp string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: "@zoidfs-ion/" + tcp}
}

// listenNear listens for peers on the same machine besides lis; nil if that is
// not possible, upon which they use lis.
func listenNear(lis net.Listener) net.Listener {
	if _, ok := lis.(*net.TCPListener); !ok {
		return nil
	}
	near, err := net.ListenUnix("unix", nearAddr(lis.Addr().String()))
	if err != nil {
		return nil
	}
	return near
}

// dialPeer connects to addr: to a peer on the same machine through its Unix socket,
// which costs both together a third less for each byte than TCP, if that
// listener is of this user or of root, as anybody may take the name.
func dialPeer(ctx context.Context, addr string) (net.Conn, error) {
	d := &net.Dialer{Timeout: connectTimeout}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if near := dialNear(conn); near != nil {
		_ = conn.Close()
		return near, nil
	}
	return conn, nil
}

// dialNear is a connection to the Unix socket of the peer of conn; nil if that
// is another machine, or has none.
func dialNear(conn net.Conn) net.Conn {
	here, ok := conn.LocalAddr().(*net.TCPAddr)
	there, same := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || !same || !here.IP.Equal(there.IP) {
		return nil
	}
	everywhere := &net.TCPAddr{IP: net.IPv6unspecified, Port: there.Port}
	for _, at := range []*net.TCPAddr{there, everywhere} {
		near, err := net.DialUnix("unix", nil, nearAddr(at.String()))
		if err != nil {
			continue
		}
		if trusted(near) {
			enlarge(near)
			return near
		}
		_ = near.Close()
	}
	return nil
}

// trusted reports whether the listener of conn is of this user or of root.
func trusted(conn *net.UnixConn) (ok bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		ok = err == nil && (peer.Uid == 0 || int(peer.Uid) == os.Geteuid())
	})
	return ok && err == nil
}

// enlarge gives a Unix socket its buffer. With less it works as well.
func enlarge(conn net.Conn) {
	near, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := near.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, nearBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, nearBuffer)
		}
	})
}
