package ranks

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/collective"
)

// Bounds of what is read of a process.
const (
	maxEnviron  = 1 << 20
	maxAncestry = 8 // parents between a rank and its launcher's daemon
)

// procFS reads /proc by as few system calls as there can be.
type procFS struct{ dir int }

func openProc() (procFS, error) {
	dir, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return procFS{}, fmt.Errorf("/proc: %w", err)
	}
	return procFS{dir}, nil
}

func (p procFS) close() { _ = unix.Close(p.dir) }

// read appends a file of a process to buf, at most maxEnviron bytes of it.
func (p procFS) read(buf []byte, pid uint32, name string) ([]byte, error) {
	fd, err := unix.Openat(p.dir, strconv.FormatUint(uint64(pid), 10)+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for len(buf) < maxEnviron {
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, max(4096, len(buf)))...)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return nil, err
		}
		if buf = buf[:len(buf)+n]; len(buf) < cap(buf) { // of these files that is the end
			return buf, nil
		}
	}
	return buf, nil
}

// stat is what matters of a /proc/PID/stat.
type stat struct {
	parent, session uint32
	started         uint64 // clock ticks since boot
}

func (p procFS) stat(pid uint32) (stat, error) {
	b, err := p.read(make([]byte, 0, 512), pid, "stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// parseStat reads fields 4, 6 and 22. The second, the name of the program, may
// hold anything, so they are counted from its end.
func parseStat(b []byte) (st stat, err error) {
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return st, errors.New("unreadable stat")
	}
	number := func(field int) uint64 {
		n, bad := strconv.ParseUint(string(fields[field-3]), 10, 64)
		err = errors.Join(err, bad)
		return n
	}
	return stat{uint32(number(4)), uint32(number(6)), number(22)}, err
}

// leader returns the process to which a thread belongs.
func (p procFS) leader(tid uint32) (uint32, error) {
	b, err := p.read(make([]byte, 0, 2048), tid, "status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(b, []byte("\nTgid:"))
	line, _, _ := bytes.Cut(rest, []byte{'\n'})
	n, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 10, 32)
	return uint32(n), err
}

// cmdline returns the arguments of a process.
func (p procFS) cmdline(pid uint32) []string {
	b, err := p.read(nil, pid, "cmdline")
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// cgroups returns the control groups of a process, as paths.
func (p procFS) cgroups(pid uint32) []string {
	b, err := p.read(nil, pid, "cgroup")
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 && parts[2] != "/" {
			out = append(out, parts[2])
		}
	}
	return out
}

// ancestors calls visit with the parents of a process, nearest first, until it
// returns false.
func (p procFS) ancestors(st stat, most int, visit func(pid uint32, st stat) bool) {
	for range most {
		pid := st.parent
		if pid <= 1 {
			return
		}
		var err error
		if st, err = p.stat(pid); err != nil || !visit(pid, st) {
			return
		}
	}
}

// hydraKey names the job of a process that Hydra has started. Hydra gives jobs
// no name, but its daemon on each node is told on its command line where
// mpiexec listens, which is the same on all nodes, and no other job's as long
// as mpiexec lives.
func (p procFS) hydraKey(st stat) (key string) {
	p.ancestors(st, maxAncestry, func(pid uint32, _ stat) bool {
		key = hydraProxy(p.cmdline(pid))
		return key == ""
	})
	return key
}

// hydraProxy returns what tells the job from the command line of Hydra's
// daemon; empty if it is another program.
func hydraProxy(argv []string) string {
	if len(argv) == 0 || !strings.HasSuffix(path.Base(argv[0]), "pmi_proxy") {
		return ""
	}
	arg := func(name string) string {
		for i, a := range argv {
			if a == name && i+1 < len(argv) {
				return argv[i+1]
			}
		}
		return ""
	}
	port := arg("--control-port")
	if port == "" {
		return ""
	}
	return join(port, arg("--pgid")) // MPI_Comm_spawn makes a new process group
}

// slurmCgroup finds step and task of a process in its control group, where they
// stay whatever the process does to its environment. Source: Slurm,
// src/plugins/cgroup/v1 and v2: .../job_J/step_S/[user/]task_T.
func slurmCgroup(groups []string) (c claim, ok bool) {
	for _, g := range groups {
		var job, step string
		task := noRank
		for _, part := range strings.Split(g, "/") {
			kind, id, _ := strings.Cut(part, "_")
			switch kind {
			case "job":
				job = id
			case "step":
				step = id
			case "task":
				if n := (env{"T": id}).number("T"); n >= 0 {
					task = collective.Rank(n)
				}
			}
		}
		if _, err := strconv.ParseUint(job, 10, 32); err != nil {
			continue
		}
		if _, err := strconv.ParseUint(step, 10, 32); err != nil { // batch, extern, interactive
			continue
		}
		return claim{launcher: slurm, key: job + "." + step, rank: task, confidence: Guessed}, true
	}
	return claim{}, false
}
