package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/bench/program"
)

// TestCPUOf spins in this process and expects to see it.
func TestCPUOf(t *testing.T) {
	before, own := program.CPUOf([]int{os.Getpid()}), program.OwnCPU()
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
	}
	got, want := program.CPUOf([]int{os.Getpid()})-before, program.OwnCPU()-own
	require.InDelta(t, want.Seconds(), got.Seconds(), 0.02)
	require.Zero(t, program.CPUOf([]int{1 << 22}), "a process that is not there")
}

func TestShares(t *testing.T) {
	const text = `File: zoidfs
Type: cpu
-----------+-------------------------------------------------------
     300ms   internal/runtime/syscall.Syscall6
             syscall.read
             github.com/zoidfs/zoidfs/fs/device.(*Device).next
-----------+-------------------------------------------------------
      50ms   runtime.memmove
             github.com/zoidfs/zoidfs/ionserver/rpc.(*Conn).CallBytes
             github.com/zoidfs/zoidfs/fs.(*file).Write
             github.com/hanwen/go-fuse/v2/fs.(*rawBridge).Write
-----------+-------------------------------------------------------
     600ms   internal/runtime/syscall.Syscall6
             net.(*conn).Write
             google.golang.org/grpc/internal/transport.(*loopyWriter).run
-----------+-------------------------------------------------------
      50ms   runtime.futex
             runtime.mcall
`
	got := strings.Join(shares(text), ", ")
	require.Equal(t, "zoidfs 5 %, FUSE 30 %, grpc 60 %, protobuf 0 %, runtime 5 %, under zoidfs 5 %", got)
	require.Equal(t, []string{"no samples"}, shares(""))
}

func TestGoals(t *testing.T) {
	one := func(rate, cpu, p50 float64) []sample { return []sample{{rate: rate, cpuGiB: cpu, p50: p50}} }
	results := map[string]map[string][]sample{
		"seq write 1 MiB": {memory: one(80, 1, 1), memoryCommit: one(90, 1, 1), loopback: one(100, 1, 1), null: one(1, 0.25, 1), rawTCP: one(1, 0.5, 1)},
		"seq read 1 MiB":  {memory: one(80, 2, 1), loopback: one(100, 1, 1), null: one(1, 1, 1)},
	}
	var out bytes.Buffer
	printGoals(&out, results)
	require.Regexp(t, `(?m)^rate of 1 MiB writes to loopback +0.80 +>= 0.7 +reached$`, out.String())
	require.Regexp(t, `(?m)^rate of 1 MiB reads to loopback +0.80 +>= 0.85 +missed$`, out.String())
	require.Regexp(t, `(?m)^CPU s/GiB of 1 MiB writes +1.00 +<= 1.4 +reached$`, out.String())
	require.Regexp(t, `(?m)^CPU s/GiB of 1 MiB reads +2.00 +<= 1.4 +missed$`, out.String())
	require.Regexp(t, `(?m)^CPU of 1 MiB writes to null \+ raw TCP +1.33 +<= 1.8 +reached$`, out.String())
	require.Regexp(t, `(?m)^rate of 1 MiB writes in commit mode to loopback +0.90 +>= 0.85 +reached$`, out.String())
	require.NotContains(t, out.String(), "CPU of 1 MiB reads to null", "raw TCP was not measured")
	require.NotContains(t, out.String(), "4 KiB", "not measured")
}

func TestRaw(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- runRaw(ctx, out) }()
	addr, err := bufio.NewReader(in).ReadString('\n')
	require.NoError(t, err)
	c, err := dialRaw(rawScheme + strings.TrimSpace(addr))
	require.NoError(t, err)
	p := bytes.Repeat([]byte{7}, memSlab/2)
	require.NoError(t, c.write(p))
	require.NoError(t, c.write(p))
	got := make([]byte, 1<<20)
	require.NoError(t, c.read(got))
	require.Equal(t, byte(7), got[1], "from the slab")
	require.NoError(t, c.conn.Close())
	cancel()
	require.NoError(t, <-done)
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-only", "("}, {"-time", "x"}} {
		require.Error(t, run(t.Context(), args, new(bytes.Buffer)), args)
	}
}
