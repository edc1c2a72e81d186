package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sync/errgroup"
)

// The raw protocol: a header of 32 bytes, then payload. The header has the
// payload's length at 0 and the length wanted back at 4; replies come in order.
const rawHeader = 32

func serveRaw(ctx context.Context, lis net.Listener, b *backend) error {
	stop := context.AfterFunc(ctx, func() { lis.Close() })
	defer stop()
	var group errgroup.Group
	for {
		conn, err := lis.Accept()
		if err != nil {
			group.Wait()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		group.Go(func() error {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			b.raw(conn) // ends when the client does
			return nil
		})
	}
}

func (b *backend) raw(conn net.Conn) error {
	r := bufio.NewReaderSize(conn, 64<<10)
	h, out := make([]byte, rawHeader), make([]byte, rawHeader)
	for {
		if _, err := io.ReadFull(r, h); err != nil {
			return err
		}
		n, want := binary.LittleEndian.Uint32(h), binary.LittleEndian.Uint32(h[4:])
		if n > 0 {
			if _, err := io.ReadFull(r, b.slab.next(int(n))); err != nil {
				return err
			}
		}
		binary.LittleEndian.PutUint32(out, want)
		if err := writeRaw(conn, out, b.block[:want]); err != nil {
			return err
		}
	}
}

// writeRaw writes one message with one system call.
func writeRaw(conn net.Conn, h, payload []byte) error {
	if len(payload) == 0 {
		_, err := conn.Write(h)
		return err
	}
	bufs := net.Buffers{h, payload}
	_, err := bufs.WriteTo(conn)
	return err
}

// rawClient sends from its callers' goroutines, one at a time, and hands the
// replies, which come in order, to the callers in that order.
type rawClient struct {
	conn    net.Conn
	w       workload
	payload []byte
	dst     *slab
	mu      sync.Mutex
	waiting chan chan error // in the order of sending
	free    sync.Pool       // of chan error
	group   errgroup.Group
}

func connectRaw(ctx context.Context, addr string, w workload) (func() error, func(), error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	c := &rawClient{conn: conn, w: w, payload: make([]byte, w.size), dst: newSlab(), waiting: make(chan chan error, w.depth)}
	c.free.New = func() any { return make(chan error, 1) }
	c.group.Go(c.receive)
	return c.do, func() {
		close(c.waiting)
		c.group.Wait()
		conn.Close()
	}, nil
}

func (c *rawClient) do() error {
	done := c.free.Get().(chan error)
	var h [rawHeader]byte
	payload := c.payload
	switch c.w.op {
	case opWrite:
		binary.LittleEndian.PutUint32(h[0:], uint32(c.w.size))
	case opEcho:
		binary.LittleEndian.PutUint32(h[0:], uint32(c.w.size))
		binary.LittleEndian.PutUint32(h[4:], uint32(c.w.size))
	case opRead:
		binary.LittleEndian.PutUint32(h[4:], uint32(c.w.size))
		payload = nil
	}
	c.mu.Lock()
	c.waiting <- done
	err := writeRaw(c.conn, h[:], payload)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	err = <-done
	c.free.Put(done)
	return err
}

func (c *rawClient) receive() error {
	r := bufio.NewReaderSize(c.conn, 64<<10)
	h := make([]byte, rawHeader)
	for done := range c.waiting {
		_, err := io.ReadFull(r, h)
		if n := binary.LittleEndian.Uint32(h); err == nil && n > 0 {
			_, err = io.ReadFull(r, c.dst.next(int(n)))
		}
		done <- err
	}
	return nil
}
