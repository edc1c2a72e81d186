package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// usage is what a process has used so far.
type usage struct {
	CPU     float64 // s
	Mallocs uint64
	GCs     uint32
	IOs     uint64 // system calls that read or wrote
}

func ownUsage() (usage, error) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return usage{}, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	io, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return usage{}, err
	}
	var skip, reads, writes uint64
	if _, err := fmt.Sscanf(string(io), "rchar: %d\nwchar: %d\nsyscr: %d\nsyscw: %d", &skip, &skip, &reads, &writes); err != nil {
		return usage{}, fmt.Errorf("/proc/self/io: %w", err)
	}
	return usage{float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e9, m.Mallocs, m.NumGC, reads + writes}, nil
}

// measure runs w over v for a warm-up and then dur.
func measure(ctx context.Context, srv *serverProcess, v variant, index int, w workload, dur time.Duration) (sample, error) {
	do, end, err := v.connect(ctx, srv.Addrs[index], w)
	if err != nil {
		return sample{}, err
	}
	defer end()
	var stop atomic.Bool
	var n atomic.Int64
	var group errgroup.Group
	for range w.depth {
		group.Go(func() error {
			for !stop.Load() {
				if err := do(); err != nil {
					return err
				}
				n.Add(1)
			}
			return nil
		})
	}
	time.Sleep(dur / 4)
	u0, err := srv.both()
	if err != nil {
		return sample{}, err
	}
	n0, t0 := n.Load(), time.Now()
	time.Sleep(dur)
	count, took := float64(n.Load()-n0), time.Since(t0).Seconds()
	u1, err := srv.both()
	if err != nil {
		return sample{}, err
	}
	stop.Store(true)
	if err := group.Wait(); err != nil {
		return sample{}, err
	}
	return sample{
		rate:   count / took,
		cpu:    (u1.CPU - u0.CPU) / count,
		allocs: float64(u1.Mallocs-u0.Mallocs) / count,
		gcs:    float64(u1.GCs-u0.GCs) / took,
		ios:    float64(u1.IOs-u0.IOs) / count,
	}, nil
}

// serverProcess is the other process; it answers each line with its usage.
type serverProcess struct {
	Addrs []string // of the variants, in order
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
}

func startServer(ctx context.Context, profile string) (*serverProcess, error) {
	s := &serverProcess{cmd: exec.CommandContext(ctx, "/proc/self/exe", "-serve", "-cpuprofile", profile)}
	s.cmd.Stderr = os.Stderr
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.in, s.out = in, bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	return s, s.read(&s.Addrs)
}

func (s *serverProcess) read(v any) error {
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("server process: %w", err)
	}
	return json.Unmarshal(line, v)
}

// both is the usage of both processes.
func (s *serverProcess) both() (usage, error) {
	own, err := ownUsage()
	if err != nil {
		return usage{}, err
	}
	if _, err := fmt.Fprintln(s.in, "usage"); err != nil {
		return usage{}, err
	}
	var u usage
	if err := s.read(&u); err != nil {
		return usage{}, err
	}
	return usage{own.CPU + u.CPU, own.Mallocs + u.Mallocs, own.GCs + u.GCs, own.IOs + u.IOs}, nil
}

func (s *serverProcess) stop() {
	s.in.Close()
	s.cmd.Wait()
}

// runServer is the server process: it prints the addresses, then its usage
// for every line that it reads, and ends with its input.
func runServer(ctx context.Context, in io.Reader, out io.Writer, profile string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopProfile, err := startProfile(profile, "server")
	if err != nil {
		return err
	}
	defer stopProfile()
	var group errgroup.Group
	addrs, err := listenAll(ctx, &group)
	if err == nil {
		err = json.NewEncoder(out).Encode(addrs)
	}
	for lines := bufio.NewScanner(in); err == nil && lines.Scan(); {
		var u usage
		if u, err = ownUsage(); err == nil {
			err = json.NewEncoder(out).Encode(u)
		}
	}
	cancel()
	if e := group.Wait(); err == nil {
		err = e
	}
	return err
}

// startProfile writes the CPU profile of this process to prefix.role until
// stop is called; without a prefix it does nothing.
func startProfile(prefix, role string) (stop func(), err error) {
	if prefix == "" {
		return func() {}, nil
	}
	f, err := os.Create(prefix + "." + role)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}

// slab is where payloads end.
type slab struct {
	mem []byte
	pos atomic.Uint64
}

const slabSize = 64 << 20

func newSlab() *slab {
	s := &slab{mem: make([]byte, slabSize)}
	for i := 0; i < len(s.mem); i += 4096 {
		s.mem[i] = 1 // have the pages now
	}
	return s
}

// next is where the next n bytes go.
func (s *slab) next(n int) []byte {
	off := int((s.pos.Add(uint64(n)) - uint64(n)) % uint64(len(s.mem)-n+1))
	return s.mem[off : off+n : off+n]
}
