package systest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// callTimeout is how long a script of calls may take before the test says that
// the file system hangs.
const callTimeout = 90 * time.Second

// proc is a worker process as its driver sees it.
type proc struct {
	name string
	node int
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
}

// startProc starts a worker on the mount of a node. It ends with the test.
func startProc(t *testing.T, r *rig, node int) *proc {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run=^$")
	cmd.Env = append(os.Environ(), workerEnv+"="+r.dirs[node])
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &proc{
		name: fmt.Sprintf("node%d/pid%d", node, cmd.Process.Pid),
		node: node, cmd: cmd, in: in, out: json.NewDecoder(bufio.NewReader(out)),
	}
	t.Cleanup(p.stop)
	return p
}

// startProcs starts n workers, spread over the nodes in turn.
func startProcs(t *testing.T, r *rig, n int) []*proc {
	t.Helper()
	ps := make([]*proc, n)
	for i := range ps {
		ps[i] = startProc(t, r, i%len(r.dirs))
	}
	return ps
}

// stop lets the worker end, which closes its files, and kills it if it does
// not.
func (p *proc) stop() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.in.Close()
	kill := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_ = p.cmd.Wait()
}

// kill ends the worker as kill -9 does, with its files open.
func (p *proc) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// run carries out a script and returns one result a call. An error means that
// the worker died or hangs.
func (p *proc) run(script []op) ([]result, error) {
	hang := time.AfterFunc(callTimeout, func() { _ = p.cmd.Process.Kill() })
	defer hang.Stop()
	if err := json.NewEncoder(p.in).Encode(script); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	var res []result
	if err := p.out.Decode(&res); err != nil {
		return nil, fmt.Errorf("%s: no answer within %v: %w", p.name, callTimeout, err)
	}
	return res, nil
}

// do makes one call and returns its result, whatever the errno.
func (p *proc) do(t *testing.T, o op) result {
	t.Helper()
	res, err := p.run([]op{o})
	require.NoError(t, err)
	return res[0]
}

// ok makes one call that must succeed.
func (p *proc) ok(t *testing.T, o op) result {
	t.Helper()
	res := p.do(t, o)
	require.Zerof(t, res.Errno, "%s: %+v: %v %s", p.name, o, res.Errno, res.Text)
	return res
}

// runAll runs one script a worker, all from the same moment on, and returns
// their results in the order of the workers.
func runAll(t *testing.T, ps []*proc, scripts [][]op) [][]result {
	t.Helper()
	out, errs := make([][]result, len(ps)), make([]error, len(ps))
	begin := op{Do: "waituntil", Off: monotonic() + int64(20*time.Millisecond)}
	var wg sync.WaitGroup
	for i, p := range ps {
		wg.Go(func() {
			res, err := p.run(append([]op{begin}, scripts[i]...))
			if err == nil {
				res = res[1:]
			}
			out[i], errs[i] = res, err
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	return out
}
