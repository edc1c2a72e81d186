package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/budget"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/proc"
)

// tailLines is how much of its log a role that failed shows.
const tailLines = 12

// maxLog is how large a log may be when its process starts; a larger one is
// kept under another name, once.
const maxLog = 16 << 20

// stopTimeout bounds how long what was started is given to stop after a
// failure.
const stopTimeout = 15 * time.Second

// RoleError is the failure of one role.
type RoleError struct {
	Name string // such as "ion1"
	Log  string // file
	Tail string // its last lines, without a final line break, if Err does not say all
	Err  error
}

// Error names the role, the reason and the log.
func (e *RoleError) Error() string { return fmt.Sprintf("%s: %v (log: %s)", e.Name, e.Err, e.Log) }

// Unwrap returns the reason.
func (e *RoleError) Unwrap() error { return e.Err }

// UpOptions says how Up works.
type UpOptions struct {
	Want     Want
	LogFlags []string // flags about logging for every process
	Timeout  time.Duration
}

// Up starts what the system in d lacks and returns when every mount answers.
// started is the number of processes that it started: 0 means that the system
// was up. When something does not start in time, Up stops again what it
// started and returns a *RoleError.
func Up(ctx context.Context, d cluster.Dir, opt UpOptions) (f *cluster.File, started int, err error) {
	if err := opt.Want.Validate(); err != nil {
		return nil, 0, err
	}
	if err := mounts.Possible(); err != nil {
		return nil, 0, err
	}
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return nil, 0, err
	}
	release, err := d.Lock()
	if err != nil {
		return nil, 0, err
	}
	defer release()
	old, err := d.Load()
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return nil, 0, err
	}
	if f, err = plan(old, opt.Want); err != nil {
		return nil, 0, err
	}
	if err := errors.Join(addresses(f), prepare(d, f)); err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, opt.Timeout)
	defer cancel()
	s := &starter{dir: d, file: f, logFlags: opt.LogFlags}
	if err := s.all(ctx); err != nil {
		// The context may be the reason; stopping needs one of its own.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return nil, 0, errors.Join(err, s.undo(clean))
	}
	return f, len(s.started), nil
}

// prepare makes the directories and files that the processes need.
func prepare(d cluster.Dir, f *cluster.File) error {
	dirs := []string{filepath.Dir(d.Log("x")), d.View()}
	for _, s := range f.PVFSD {
		dirs = append(dirs, d.Data(s.Alias))
	}
	for _, n := range f.Nodes {
		dirs = append(dirs, filepath.Dir(d.Mount(n.Name)))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, n := range f.Nodes { // not MkdirAll, which would look into a dead mount
		if err := os.Mkdir(d.Mount(n.Name), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return errors.Join(writeConf(d, f), d.Save(f))
}

// starter starts processes and remembers them, to stop them again if the
// whole does not come up.
type starter struct {
	dir      cluster.Dir
	file     *cluster.File
	logFlags []string
	started  []*cluster.Role // in order
}

// launchable is one role that is to be started.
type launchable struct {
	name string
	role *cluster.Role
	args []string
}

// all starts the roles in the order in which they depend on each other.
func (s *starter) all(ctx context.Context) error {
	for _, phase := range [][]launchable{s.servers(), s.ions(), s.nodes()} {
		if err := s.phase(ctx, phase); err != nil {
			return err
		}
	}
	for _, n := range s.file.Nodes {
		if err := mounts.Answer(ctx, n.Mount); err != nil {
			return &RoleError{n.Name, n.Log, tail(n.Log, tailLines), fmt.Errorf("the mount does not answer: %w", err)}
		}
	}
	return nil
}

func (s *starter) servers() []launchable {
	var out []launchable
	for i := range s.file.PVFSD {
		srv := &s.file.PVFSD[i]
		out = append(out, launchable{srv.Alias, &srv.Role, []string{"pvfsd", "--config", s.dir.Conf(), "--server", srv.Alias}})
	}
	return out
}

func (s *starter) ions() []launchable {
	var out []launchable
	cache := fmt.Sprint(budget.ION(len(s.file.IONs)))
	for i := range s.file.IONs {
		ion := &s.file.IONs[i]
		out = append(out, launchable{cluster.IONName(i), &ion.Role,
			[]string{"ion", "--listen", ion.Addr, "--pvfs", s.file.PVFS, "--peers", ionAddrs(s.file), "--collective", s.file.Collective,
				"--cache", cache}})
	}
	return out
}

func (s *starter) nodes() []launchable {
	var out []launchable
	for i := range s.file.Nodes {
		n := &s.file.Nodes[i]
		out = append(out, launchable{n.Name, &n.Role,
			[]string{"mount", n.Mount, "--foreground", "--ion", ionAddrs(s.file), "-o", s.options()}})
	}
	return out
}

// options are those of all mounts. A system that an older version made says
// nothing of some.
func (s *starter) options() string {
	o := "consistency=" + s.file.Consistency
	if s.file.Visibility != "" {
		o += ",visibility=" + s.file.Visibility
	}
	o += fmt.Sprintf(",cache=%d", budget.Mount(len(s.file.Nodes)))
	return o + ",collective=" + s.file.Collective
}

// phase starts those of ls that do not run and waits until all of them serve.
func (s *starter) phase(ctx context.Context, ls []launchable) error {
	children := make([]*proc.Child, len(ls))
	for i, l := range ls {
		if l.role.Alive() {
			continue
		}
		var err error
		if children[i], err = s.start(l); err != nil {
			return fmt.Errorf("start %s: %w", l.name, err)
		}
	}
	var wait sync.WaitGroup
	errs := make([]error, len(ls))
	for i, child := range children {
		if child != nil {
			wait.Go(func() { errs[i] = child.Ready(ctx) })
		}
	}
	wait.Wait()
	for i, err := range errs {
		if err != nil { // the first tells enough; its log is shown
			return failure(ls[i], err)
		}
	}
	return nil
}

// failure says that l did not start because of err. The log is shown unless
// the process itself has said why.
func failure(l launchable, err error) error {
	out := &RoleError{Name: l.name, Log: l.role.Log, Err: err}
	var told *proc.ReportError
	if !errors.As(err, &told) {
		out.Tail = tail(l.role.Log, tailLines)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		out.Err = errors.New("not ready in time, see --timeout")
	case errors.Is(err, context.Canceled):
		out.Err = errors.New("interrupted")
	}
	return out
}

func (s *starter) start(l launchable) (*proc.Child, error) {
	if st, err := os.Stat(l.role.Log); err == nil && st.Size() > maxLog {
		if err := os.Rename(l.role.Log, l.role.Log+".old"); err != nil {
			return nil, err
		}
	}
	exit := s.dir.Exit(l.name)
	if err := PrepareExit(exit); err != nil {
		return nil, err
	}
	args := append(l.args, "--ready-fd", fmt.Sprint(proc.ReadyFD), "--exit-file", exit)
	if l.role.Metrics != "" {
		args = append(args, "--metrics", l.role.Metrics)
	}
	child, err := proc.Start(l.role.Log, append(args, s.logFlags...)...)
	if err != nil {
		return nil, err
	}
	l.role.ID = child.ID
	s.started = append(s.started, l.role)
	return child, s.dir.Save(s.file)
}

// undo stops what was started, the last first, and forgets it.
func (s *starter) undo(ctx context.Context) error {
	var errs []error
	for i := len(s.started) - 1; i >= 0; i-- {
		if err := s.started[i].Stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.started[i].ID, err))
		}
		s.started[i].ID = proc.ID{}
	}
	for _, n := range s.file.Nodes {
		if n.Alive() {
			continue
		}
		if _, err := mounts.ClearStale(ctx, n.Mount); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, s.dir.Save(s.file))...)
}

// tail returns the last n lines of a file, or nothing.
func tail(name string, n int) string {
	const most = 16 << 10
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > most {
		_, _ = f.Seek(-most, 2) // a failure shows the head instead of the tail
	}
	b := make([]byte, most)
	k, _ := f.Read(b)
	lines := strings.Split(strings.TrimRight(string(b[:k]), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
