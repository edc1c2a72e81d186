package fsck_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd"
)

// What a process of the test binary is to be.
const (
	serverEnv = "FSCK_TEST_SERVER" // alias of a server, which reads its fs.conf from stdin
	clientEnv = "FSCK_TEST_CLIENT" // URL of the file system that a client works on
)

func TestMain(m *testing.M) {
	if alias := os.Getenv(serverEnv); alias != "" {
		fmt.Fprintln(os.Stderr, serve(alias))
		os.Exit(1)
	}
	if url := os.Getenv(clientEnv); url != "" {
		fmt.Fprintln(os.Stderr, work(url))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// serve is a server until it is killed.
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

// work is a client until it is killed. It says when it has begun.
func work(url string) error {
	ctx := context.Background()
	c, err := pvfs.Dial(ctx, url, pvfs.Options{})
	if err != nil {
		return err
	}
	var g errgroup.Group
	for id := range 3 {
		w, err := newWorker(ctx, c, os.Getpid()*10+id, rand.Uint64())
		if err != nil {
			return err
		}
		g.Go(func() error {
			for {
				if err := w.step(); err != nil {
					return err
				}
			}
		})
	}
	fmt.Println("working")
	return g.Wait()
}

// processes are the servers of a file system, each a process of its own. The
// methods are for the test's goroutine.
type processes struct {
	t    *testing.T
	conf *fsconf.Config
	cmds []*exec.Cmd
	errs []bytes.Buffer // what they wrote to stderr: reports of the race detector
}

func startProcesses(t *testing.T, n int, edit func(*fsconf.GenOptions)) *processes {
	gen := fsconf.GenOptions{FSName: "zoidfs", FSID: 4711}
	p := &processes{t: t, cmds: make([]*exec.Cmd, n), errs: make([]bytes.Buffer, n)}
	dir := t.TempDir()
	for i := range n {
		alias := fmt.Sprintf("s%d", i)
		gen.Servers = append(gen.Servers, fsconf.ServerSpec{Alias: alias, Addr: freeAddr(t), Dir: filepath.Join(dir, alias)})
	}
	edit(&gen)
	text, err := fsconf.Generate(gen)
	require.NoError(t, err)
	p.conf, err = fsconf.Parse(text)
	require.NoError(t, err)
	t.Cleanup(func() {
		for i := range p.cmds {
			p.kill(i)
		}
	})
	for i := range n {
		p.start(i)
	}
	for i := range n {
		p.await(i)
	}
	return p
}

// freeAddr is below the ports that the kernel gives to clients, so that nobody
// takes it while a server is down.
func freeAddr(t *testing.T) string {
	for range 200 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(17000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	require.Fail(t, "no free port")
	return ""
}

func (p *processes) addr(i int) string {
	addr, _ := p.conf.Addr(fmt.Sprintf("s%d", i))
	return addr
}

func (p *processes) url() string { return "tcp://" + p.addr(0) + "/zoidfs" }

func (p *processes) start(i int) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=s%d", serverEnv, i))
	cmd.Stdin = bytes.NewReader([]byte(p.conf.Text))
	cmd.Stderr = &p.errs[i]
	require.NoError(p.t, cmd.Start())
	p.cmds[i] = cmd
}

// await returns once server i accepts connections.
func (p *processes) await(i int) {
	require.Eventually(p.t, func() bool {
		nc, err := net.Dial("tcp", p.addr(i))
		if err == nil {
			nc.Close()
		}
		return err == nil
	}, 30*time.Second, 2*time.Millisecond)
}

// kill ends server i with SIGKILL if it runs.
func (p *processes) kill(i int) {
	if p.cmds[i] == nil {
		return
	}
	_ = p.cmds[i].Process.Kill()
	_ = p.cmds[i].Wait()
	p.cmds[i] = nil
	require.Empty(p.t, p.errs[i].String())
}
