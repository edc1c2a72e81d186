package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// opOffset is where the op stands in the payload of a request.
const opOffset = 8

// proxy stands between clients and all servers of a file system and counts
// requests. It tells clients a configuration with its own addresses.
type proxy struct {
	url    string // of the file system through it
	rename *strings.Replacer
	ports  []net.Listener
	tasks  errgroup.Group // all goroutines

	mu     sync.Mutex
	counts map[string]int64  // guarded by mu; by operation
	conns  map[net.Conn]bool // guarded by mu; nil after stop
}

// newProxy listens once a server. The url is that of the first one.
func newProxy(c *pvfs.Client) (*proxy, error) {
	p := &proxy{counts: map[string]int64{}, conns: map[net.Conn]bool{}}
	var names []string
	for i, s := range c.Servers() {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return p, errors.Join(err, p.stop())
		}
		p.ports = append(p.ports, lis)
		names = append(names, "tcp://"+s.Addr, "tcp://"+lis.Addr().String())
		if i == 0 {
			p.url = "tcp://" + lis.Addr().String() + "/" + c.FSName()
		}
	}
	p.rename = strings.NewReplacer(names...)
	for i, s := range c.Servers() {
		p.tasks.Go(func() error { return p.serve(p.ports[i], s.Addr) })
	}
	return p, nil
}

// stop ends all connections.
func (p *proxy) stop() error {
	for _, lis := range p.ports {
		_ = lis.Close()
	}
	p.mu.Lock()
	for nc := range p.conns {
		_ = nc.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	return p.tasks.Wait()
}

// snapshot is what was counted so far.
func (p *proxy) snapshot() map[string]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// add notes a connection that stop ends; false after stop.
func (p *proxy) add(nc net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		_ = nc.Close()
		return false
	}
	p.conns[nc] = true
	return true
}

func (p *proxy) serve(lis net.Listener, addr string) error {
	for {
		client, err := lis.Accept()
		if err != nil {
			return nil // stopped
		}
		server, err := net.Dial("tcp", addr)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.add(client) || !p.add(server) {
			return nil
		}
		both := func() {
			_ = client.Close()
			_ = server.Close()
		}
		p.tasks.Go(func() error {
			defer both()
			_ = p.forward(server, client, p.request)
			return nil
		})
		p.tasks.Go(func() error {
			defer both()
			_ = p.forward(client, server, p.response)
			return nil
		})
	}
}

// forward passes messages on until one side is gone. edit may look at those of
// up to one request's length, and returns what to send instead, header included.
func (p *proxy) forward(to io.Writer, from io.Reader, edit func(h wire.Header, frame []byte) []byte) error {
	in := bufio.NewReaderSize(from, 256<<10)
	head := make([]byte, wire.HeaderSize)
	for {
		if _, err := io.ReadFull(in, head); err != nil {
			return err
		}
		h, err := wire.DecodeHeader(head)
		if err != nil {
			return err
		}
		if h.Mode == wire.Rend && h.Size > wire.MaxConfig+1024 {
			if _, err := to.Write(head); err != nil {
				return err
			}
			if _, err := io.CopyN(to, in, h.Size); err != nil {
				return err
			}
			continue
		}
		frame := append(make([]byte, 0, int64(len(head))+h.Size), head...)[:int64(len(head))+h.Size]
		if _, err := io.ReadFull(in, frame[len(head):]); err != nil {
			return err
		}
		if _, err := to.Write(edit(h, frame)); err != nil {
			return err
		}
	}
}

// request counts.
func (p *proxy) request(h wire.Header, frame []byte) []byte {
	if b := frame[wire.HeaderSize:]; h.Mode == wire.Unexpected && len(b) >= opOffset+4 {
		op := wire.Op(binary.LittleEndian.Uint32(b[opOffset:])).String()
		p.mu.Lock()
		p.counts[op]++
		p.mu.Unlock()
	}
	return frame
}

// response puts the proxy's addresses into configurations.
func (p *proxy) response(h wire.Header, frame []byte) []byte {
	b := frame[wire.HeaderSize:]
	if len(b) < opOffset+4 || wire.Op(binary.LittleEndian.Uint32(b[opOffset:])) != wire.OpGetConfig {
		return frame
	}
	var resp wire.GetConfigResp
	if status, err := wire.DecodeResponseInto(b, wire.OpGetConfig, &resp); err != nil || status != 0 {
		return frame // flow data that look like it, or no configuration
	}
	resp.Config = p.rename.Replace(resp.Config)
	return wire.AppendResponseFrame(nil, h.Tag, wire.OpGetConfig, 0, &resp)
}
