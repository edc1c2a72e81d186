package pvfsdtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd"
)

// serverEnv is the alias of the server that a process of the test binary is to
// be. It reads its configuration from stdin.
const serverEnv = "PVFSDTEST_SERVER"

// RunAsServer makes this process a server if Processes started it; else it
// does nothing. TestMain calls it first.
func RunAsServer() {
	if alias := os.Getenv(serverEnv); alias != "" {
		fmt.Fprintln(os.Stderr, serve(alias))
		os.Exit(1)
	}
}

func serve(alias string) error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	conf, err := fsconf.Parse(string(text))
	if err != nil {
		return err
	}
	srv, err := pvfsd.Open(pvfsd.Options{Config: conf, Alias: alias})
	if err != nil {
		return err
	}
	return srv.Run(context.Background())
}

// Processes are the servers of a file system, each a process of its own, for
// tests that kill them. The methods are for the test's goroutine.
type Processes struct {
	Conf *fsconf.Config
	Dirs []string // of the servers' data

	t    *testing.T
	cmds []*exec.Cmd
	errs []bytes.Buffer // what they wrote to stderr: reports of the race detector
}

// StartProcesses runs n servers with the aliases s0, s1 ... of a file system
// "zoidfs", and kills them at the end of the test.
func StartProcesses(t *testing.T, n int, edit func(*fsconf.GenOptions)) *Processes {
	t.Helper()
	gen := fsconf.GenOptions{FSName: "zoidfs", FSID: 4711}
	p := &Processes{t: t, cmds: make([]*exec.Cmd, n), errs: make([]bytes.Buffer, n)}
	dir := t.TempDir()
	for i := range n {
		alias := fmt.Sprintf("s%d", i)
		p.Dirs = append(p.Dirs, filepath.Join(dir, alias))
		l := Listen(t)
		gen.Servers = append(gen.Servers, fsconf.ServerSpec{Alias: alias, Addr: l.Addr().String(), Dir: p.Dirs[i]})
		l.Close()
	}
	edit(&gen)
	text, err := fsconf.Generate(gen)
	require.NoError(t, err)
	p.Conf, err = fsconf.Parse(text)
	require.NoError(t, err)
	t.Cleanup(func() {
		for i := range p.cmds {
			p.Kill(i)
		}
	})
	for i := range n {
		p.Start(i)
	}
	for i := range n {
		p.Await(i)
	}
	return p
}

// Addr is host:port of server i.
func (p *Processes) Addr(i int) string {
	addr, _ := p.Conf.Addr(fmt.Sprintf("s%d", i))
	return addr
}

// URL is tcp://HOST:PORT/FSNAME of the first server.
func (p *Processes) URL() string { return "tcp://" + p.Addr(0) + "/zoidfs" }

// Start starts server i and does not wait for it.
func (p *Processes) Start(i int) {
	p.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=s%d", serverEnv, i))
	cmd.Stdin = bytes.NewReader([]byte(p.Conf.Text))
	cmd.Stderr = &p.errs[i]
	require.NoError(p.t, cmd.Start())
	p.cmds[i] = cmd
}

// Await returns once server i accepts connections.
func (p *Processes) Await(i int) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		nc, err := net.Dial("tcp", p.Addr(i))
		if err == nil {
			nc.Close()
		}
		return err == nil
	}, 30*time.Second, 2*time.Millisecond)
}

// Kill ends server i with SIGKILL if it runs.
func (p *Processes) Kill(i int) {
	p.t.Helper()
	if p.cmds[i] == nil {
		return
	}
	_ = p.cmds[i].Process.Kill()
	_ = p.cmds[i].Wait()
	p.cmds[i] = nil
	require.Empty(p.t, p.errs[i].String())
}
