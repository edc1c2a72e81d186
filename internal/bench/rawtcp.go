package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/sync/errgroup"
)

// The raw protocol: a header of the bytes that follow and of those wanted
// back, then the payload. The reply is the bytes wanted, or one byte if none
// are.
const rawHeader = 8

// rawScheme marks the path of a load that goes over TCP and not to a file.
const rawScheme = "tcp://"

// runRaw serves the raw protocol until ctx ends and prints its address first.
// Payloads end in a slab and come from it, as those of the I/O node in memory.
func runRaw(ctx context.Context, out io.Writer) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { lis.Close() })
	defer stop()
	slab := newSlab()
	fmt.Fprintln(out, lis.Addr())
	var group errgroup.Group
	for {
		conn, err := lis.Accept()
		if errors.Is(err, net.ErrClosed) {
			return group.Wait()
		}
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		group.Go(func() error {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			err := serveRaw(conn, slab)
			if ctx.Err() != nil {
				return nil
			}
			return err
		})
	}
}

// serveRaw answers one client until it hangs up.
func serveRaw(conn net.Conn, slab []byte) error {
	r := bufio.NewReaderSize(conn, 64<<10)
	h := make([]byte, rawHeader)
	for at := 0; ; {
		if _, err := io.ReadFull(r, h); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		n, want := int(binary.LittleEndian.Uint32(h)), int(binary.LittleEndian.Uint32(h[4:]))
		if max(n, want) > len(slab) {
			return fmt.Errorf("raw request of %d and %d bytes", n, want)
		}
		if at+max(n, want) > len(slab) {
			at = 0
		}
		if _, err := io.ReadFull(r, slab[at:at+n]); err != nil {
			return err
		}
		if _, err := conn.Write(slab[at : at+max(want, 1)]); err != nil {
			return err
		}
		at += max(n, want)
	}
}

// rawClient makes raw requests, one at a time.
type rawClient struct {
	conn net.Conn
	r    *bufio.Reader
	h    [rawHeader]byte
}

func dialRaw(path string) (*rawClient, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(path, rawScheme))
	if err != nil {
		return nil, err
	}
	return &rawClient{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}, nil
}

func (c *rawClient) write(p []byte) error {
	binary.LittleEndian.PutUint32(c.h[:], uint32(len(p)))
	binary.LittleEndian.PutUint32(c.h[4:], 0)
	if _, err := (&net.Buffers{c.h[:], p}).WriteTo(c.conn); err != nil {
		return err
	}
	_, err := c.r.ReadByte()
	return err
}

func (c *rawClient) read(p []byte) error {
	binary.LittleEndian.PutUint32(c.h[:], 0)
	binary.LittleEndian.PutUint32(c.h[4:], uint32(len(p)))
	if _, err := c.conn.Write(c.h[:]); err != nil {
		return err
	}
	_, err := io.ReadFull(c.r, p)
	return err
}
