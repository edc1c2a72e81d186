package rpc

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/shared"
)

// nearBuffer is how many bytes a Unix socket holds for a peer that is not
// reading just now, if the kernel lets us: with its default of 208 KiB sender
// and receiver wait for each other four times in 1 MiB.
const nearBuffer = 4 << 20

// nearAddr names the Unix socket of whoever listens at a TCP address. It is an
// abstract one: it belongs to the network namespace, as the address does, and
// goes with its listener.
func nearAddr(tcp string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: "@zoidfs-ion.2/" + tcp}
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
// listener is of this user or of root, as anybody may take the name. There the
// peer is shown own, if that is not nil.
func dialPeer(ctx context.Context, addr string, own *shared.Region) (net.Conn, error) {
	d := &net.Dialer{Timeout: connectTimeout}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if near := dialNear(ctx, conn, own); near != nil {
		_ = conn.Close()
		return near, nil
	}
	return conn, nil
}

// dialNear is a connection to the Unix socket of the peer of conn; nil if that
// is another machine, or has none.
func dialNear(ctx context.Context, conn net.Conn, own *shared.Region) net.Conn {
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
			hurry := context.AfterFunc(ctx, func() { _ = near.Close() })
			c, err := greet(near, own)
			if hurry() && err == nil {
				return c
			}
			if err == nil {
				_ = c.Close()
			}
		}
		_ = near.Close()
	}
	return nil
}

// trusted reports whether the peer of conn is of this user or of root.
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

// greet begins a connection to a listener: first the one that dialled shows its
// memory, if it has any, then the other does so, if it was shown some and trusts
// the peer. Nothing else is sent before.
func greet(conn *net.UnixConn, own *shared.Region) (net.Conn, error) {
	c := &nearConn{UnixConn: conn}
	err := conn.SetDeadline(time.Now().Add(connectTimeout))
	if err == nil {
		c.lender, err = show(conn, own)
	}
	if err == nil {
		c.borrower, err = see(conn)
	}
	return c.greeted(err)
}

// welcome is greet of the one that listened.
func welcome(conn *net.UnixConn, own *shared.Region, trusted func(*net.UnixConn) bool) (net.Conn, error) {
	c := &nearConn{UnixConn: conn}
	err := conn.SetDeadline(time.Now().Add(connectTimeout))
	if err == nil {
		c.borrower, err = see(conn)
	}
	if err == nil {
		if c.borrower == nil || !trusted(conn) {
			own = nil
		}
		c.lender, err = show(conn, own)
	}
	return c.greeted(err)
}

// greeted is c, or nothing of it if err is not nil.
func (c *nearConn) greeted(err error) (net.Conn, error) {
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// show lets the peer of conn see own; if that is nil, it is told so.
func show(conn *net.UnixConn, own *shared.Region) (*lender, error) {
	if own == nil {
		_, err := conn.Write([]byte{0})
		return nil, err
	}
	here, there, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer there.Close() // the peer has its own
	if !own.Show(func(fd int) {
		_, _, err = conn.WriteMsgUnix([]byte{1}, unix.UnixRights(fd, int(there.Fd())), nil)
	}) {
		err = os.ErrClosed
	}
	if err != nil {
		_ = here.Close()
		return nil, err
	}
	return newLender(own, here), nil
}

// see is the other end of show; nil if there is nothing to see.
func see(conn *net.UnixConn) (*borrower, error) {
	var said [1]byte
	oob := make([]byte, unix.CmsgSpace(2*4))
	n, m, _, _, err := conn.ReadMsgUnix(said[:], oob)
	fds := rights(oob[:m])
	switch {
	case err == nil && n == 0:
		err = io.ErrUnexpectedEOF
	case err == nil && len(fds) == 0 && said[0] == 0:
		return nil, nil
	case err == nil && len(fds) != 2:
		err = errno.New("rpc.see", syscall.EPROTO)
	}
	var mem []byte
	if err == nil {
		mem, err = shared.Map(fds[0])
	}
	if err != nil {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	_ = unix.Close(fds[0])
	return &borrower{mem: mem, line: os.NewFile(uintptr(fds[1]), "lender"), uses: 1}, nil
}

// rights is the open files that came with a message.
func rights(oob []byte) (fds []int) {
	msgs, _ := unix.ParseSocketControlMessage(oob)
	for i := range msgs {
		some, _ := unix.ParseUnixRights(&msgs[i])
		fds = append(fds, some...)
	}
	return fds
}
